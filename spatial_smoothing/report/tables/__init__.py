"""Tables of rows for the page."""
