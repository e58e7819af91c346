"""The report's style sheet: system fonts, one column, tables that scroll inside their own box on a phone."""

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 64rem; font: 1rem/1.5 system-ui, sans-serif; color: #222;
  background: #fff; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.3rem; margin: 2.2rem 0 .6rem; border-top: 1px solid #bbb; padding-top: 1rem; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; }
p, ul { margin: .5rem 0; max-width: 46rem; }
a { color: #15599c; }
nav ul { list-style: none; padding: 0; }
nav li { margin: .25rem 0; }
.box { background: #f3f5f8; border-left: 4px solid #15599c; padding: .6rem .9rem; margin: .8rem 0; }
.box p, .box ul { max-width: none; }
.note { color: #4a4a4a; font-size: .9rem; }
.wide { overflow-x: auto; margin: .6rem 0; border: 1px solid #ddd; }
.wide:focus { outline: 2px solid #15599c; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .4rem .5rem; font-weight: 600; caption-side: top; }
th, td { padding: .3rem .5rem; text-align: right; border-top: 1px solid #ddd; vertical-align: top;
  white-space: nowrap; overflow-wrap: normal; }
th { background: #f3f5f8; white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 6rem;
  overflow-wrap: break-word; }
th.words { text-align: left; }
td.words { text-align: left; white-space: normal; min-width: 8rem; overflow-wrap: break-word; }
.below { font-weight: 700; }
svg { display: block; width: 100%; max-width: 36rem; height: auto; font: 12px system-ui, sans-serif; }
svg text { paint-order: stroke; stroke: #fff; stroke-width: 3px; stroke-linejoin: round; }
figure { margin: .8rem 0; }
figcaption { font-size: .9rem; color: #4a4a4a; }
article { border: 1px solid #ccc; padding: .6rem .9rem; margin: .8rem 0; }
article h3 { margin: 0 0 .3rem; }
ins, del { padding: 0 .1em; }
del { background: #fde2d5; color: #7a2500; text-decoration: line-through; }
ins { background: #d8ecd8; color: #0b4a17; text-decoration: underline; }
.flag { border: 2px solid #b00020; color: #b00020; padding: 0 .35rem; font-weight: 600; }
.good { border: 2px solid #0b6b1d; color: #0b6b1d; padding: 0 .35rem; font-weight: 600; }
.diff { white-space: pre-wrap; }
details { margin: .6rem 0; }
summary { cursor: pointer; padding: .3rem 0; font-weight: 600; }
@media (max-width: 34rem) {
  thead { display: none; }
  table, tbody, tr, td, caption { display: block; }
  tr { border-top: 2px solid #bbb; padding: .3rem 0; }
  td, td.words { border: 0; display: flex; justify-content: space-between; gap: 1rem; text-align: right; min-width: 0;
    white-space: normal; overflow-wrap: anywhere; padding: .12rem .5rem; }
  td::before { content: attr(data-label); color: #4a4a4a; text-align: left; flex: none; max-width: 55%;
    overflow-wrap: normal; }
  td:first-child { font-weight: 600; text-align: left; }
  td:first-child::before { content: none; }
}
@media print { .wide { overflow: visible; } article { break-inside: avoid; } }
"""
