"""The style sheet of the page: light, for narrow and wide windows and for paper."""

CSS = """
:root { color-scheme: light; --ink: #1b1b1b; --soft: #5c5c5c; --line: #d5d5d5; }
* { box-sizing: border-box; }
body {
  margin: 0; background: #fff; color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
    "Liberation Sans", Arial, sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: break-word;
}
main { max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { margin: 0; font-size: 1.75rem; line-height: 1.25; font-weight: 600; }
h2 {
  margin: 2.75rem 0 .75rem; font-size: 1.2rem; line-height: 1.3; font-weight: 600;
}
p { max-width: 46rem; margin: .5rem 0; }
.facts, .notes, .caption, figcaption { color: var(--soft); font-size: .875rem; }
.notes { max-width: 46rem; margin: .75rem 0 0; padding: 0; list-style: none; }
.notes li { padding-left: 1em; text-indent: -1em; }
.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid #0072b2; outline-offset: 2px; }

table {
  border-collapse: collapse; font-size: .8125rem; line-height: 1.35;
  border-top: 1.5px solid var(--ink); border-bottom: 1.5px solid var(--ink);
}
* + .caption { margin-top: 1.25rem; }
h2 + .caption { margin-top: .5rem; }
th, td {
  padding: .2rem .4rem; text-align: right; vertical-align: baseline;
  white-space: nowrap;
}
th { font-weight: 400; }
thead th, thead .name {
  padding-top: .4rem; vertical-align: bottom; font-weight: 600;
}
thead { border-bottom: 1px solid var(--ink); }
thead .over { border-bottom: 1px solid var(--line); text-align: center; }
td small {
  display: block; color: var(--soft); font-size: .76em; word-spacing: -.1em;
}
thead small { display: block; font-size: .92em; color: var(--soft); font-weight: 400; }
.name {
  min-width: 8.5rem; max-width: 13rem; padding-left: 0; text-align: left;
  white-space: normal;
}
.name code { display: block; }
code { color: var(--soft); font: .92em/1.4 ui-monospace, "SF Mono", Menlo, Consolas,
  "Liberation Mono", monospace; }
tbody + tbody tr:first-child > * { border-top: 1px solid var(--line); }
tbody tr:first-child > * { padding-top: .4rem; }
tbody tr:last-child > *, tbody .name { padding-bottom: .4rem; }
strong { font-weight: 700; }

figure { margin: 0; }
.scroll + figure, .notes + figure, figure + figure { margin-top: 2rem; }
img { display: block; max-width: 100%; height: auto; }
figcaption { max-width: 46rem; margin-top: .75rem; }

dl {
  display: grid; grid-template-columns: minmax(6rem, 12rem) 1fr; gap: .15rem 1.25rem;
  margin: .25rem 0; font-size: .875rem;
}
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
details { margin: .5rem 0; font-size: .875rem; }
summary { cursor: pointer; font-weight: 600; }
details > dl, details > details { margin-left: 1rem; }

@media (max-width: 40rem) {
  main { padding-top: 1.5rem; }
  h1 { font-size: 1.4rem; }
  dl { grid-template-columns: minmax(5rem, 8rem) 1fr; gap: .15rem .75rem; }
}
@media print {
  @page { margin: 15mm; }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  .scroll { overflow: visible; }
  table { font-size: 7pt; }
  th, td { padding-inline: .25em; }
  h2 { break-after: avoid; }
  tr, figure, .caption { break-inside: avoid; }
  .caption { break-after: avoid; }
}
"""
