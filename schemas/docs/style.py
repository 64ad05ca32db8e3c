"""Style sheet of the reference page: light and dark, one column on small screens."""

STYLE = """
:root { color-scheme: light dark; --bg: #fff; --fg: #1c2024; --soft: #f3f5f3; --line: #d5dad5;
  --link: #17663a }
@media (prefers-color-scheme: dark) {
  :root { --bg: #15181a; --fg: #e3e6e4; --soft: #1f2426; --line: #3a4142; --link: #7fd3a0 }
}
* { box-sizing: border-box }
body { margin: 0; display: flex; background: var(--bg); color: var(--fg);
  font: 16px/1.55 system-ui, sans-serif }
nav { position: sticky; top: 0; flex: none; width: 15rem; height: 100vh; overflow: auto;
  padding: 1.5rem 1rem; background: var(--soft); border-right: 1px solid var(--line) }
nav strong, nav a { display: block; padding: .15rem 0; overflow-wrap: anywhere }
main { flex: 1; min-width: 0; max-width: 60rem; padding: 1rem 2rem 4rem }
section { padding: 1rem 0; border-bottom: 1px solid var(--line) }
h2 code { font-size: .8em; font-weight: normal }
h3 { margin: 1.5rem 0 .5rem; font-size: 1rem }
a { color: var(--link); text-decoration: none }
a:hover, a:focus { text-decoration: underline }
code, pre { font: .875em/1.5 ui-monospace, monospace }
:not(pre) > code { padding: .1em .3em; background: var(--soft); border-radius: .25em;
  overflow-wrap: anywhere }
pre { margin: .5rem 0; padding: .75rem 1rem; overflow-x: auto; background: var(--soft);
  border: 1px solid var(--line); border-radius: .4rem }
td:first-child code { overflow-wrap: normal; white-space: nowrap }
table { display: block; overflow-x: auto; margin: .5rem 0; border-collapse: collapse }
th, td { padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top }
@media (max-width: 50rem) {
  body { display: block }
  nav { position: static; width: auto; height: auto; max-height: 40vh }
  main { padding: 1rem }
}
"""
