"""Image files: decoding, folders of classes, and the input pipeline."""
