"""The look of an audit's page: by day and by night, on a phone, on paper."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5b6675; --paper: #ffffff; --card: #f4f6f8;
  --line: #d5dbe2; --blue: #0072b2; --orange: #b34700; --wash: #fdf1e7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa6b5; --paper: #14181e; --card: #1e242c;
  --line: #37414d; --blue: #56b4e9; --orange: #ff9d57; --wash: #33261b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; }
h3 { font-size: .95rem; font-weight: 600; margin: 0 0 .5rem; }
header p, .more { color: var(--soft); margin: .25rem 0 0; }
.seal { border-left: 4px solid var(--blue); padding: .2rem .8rem; margin: 2rem 0 0; max-width: 60rem; }
code { font: .85em/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
.overview { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr)); gap: .75rem;
  margin: 1.5rem 0 0; }
.overview div { background: var(--card); border-left: 4px solid var(--line); border-radius: 4px; padding: .6rem .8rem; }
.overview .warn { border-color: var(--orange); background: var(--wash); }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
section { max-width: 100%; overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
tbody th { text-align: left; font-weight: 400; overflow-wrap: anywhere; }
.leak th, .leak td { color: var(--orange); font-weight: 600; }
td.bar { width: 30%; min-width: 6rem; } th.bar { text-align: left; }
.bar span { display: block; height: .7rem; background: var(--blue); border-radius: 2px; }
.group { background: var(--card); border-left: 4px solid var(--line); border-radius: 4px; padding: .7rem .8rem;
  margin: 0 0 .75rem; break-inside: avoid; }
.group.warn { border-color: var(--orange); }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .75rem; }
figure { margin: 0; min-width: 0; break-inside: avoid; }
figure img { width: 96px; height: 96px; object-fit: contain; background: var(--line); image-rendering: pixelated;
  display: block; border-radius: 2px; outline: 1px solid var(--line); }
.unseen { width: 96px; height: 96px; display: grid; place-items: center; background: var(--line); color: var(--soft);
  font-size: .75rem; border-radius: 2px; }
figcaption { font-size: .85rem; line-height: 1.35; margin-top: .25rem; overflow-wrap: anywhere; }
figcaption i { font-style: normal; color: var(--soft); }
.group .test i, .group .validation i { color: var(--orange); }
figcaption code { display: block; color: var(--soft); }
li { overflow-wrap: anywhere; }
@media print { :root { --ink: #000; --soft: #444; --paper: #fff; --card: #fff; --line: #bbb; --blue: #0072b2;
  --orange: #8f3a00; --wash: #fff; } main { max-width: none; padding: 0; } section { overflow: visible; }
  .bar span { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""
