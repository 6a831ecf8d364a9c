"""How the inspection page looks: its style sheet, on top of gradio's theme and its colours.

It lies in the page itself, since gradio takes style sheets where a page is mounted, not built.
"""

from string import Template

from tfgad.plots import ANOMALOUS, NORMAL

OPACITY = 50  # of the heat map at first, in percent: what it covers is to be seen through it

CSS = Template("""
.tfgad { color: var(--body-text-color); font-size: 15px; line-height: 1.45; }
.tfgad p { margin: 0 0 .3em; }
.tfgad .empty {
  padding: 4.5em 1em; text-align: center; color: var(--body-text-color-subdued);
  border: 1px dashed var(--border-color-primary); border-radius: 10px;
}
.tfgad .note, .tfgad .rate { font-size: 14px; color: var(--body-text-color-subdued); }
.tfgad .note b, .tfgad .rate b { color: var(--body-text-color); }
.tfgad .rate b { font-size: 19px; font-variant-numeric: tabular-nums; }
.tfgad header { display: flex; flex-wrap: wrap; align-items: center; gap: .4em .8em; }
.tfgad .badge {
  padding: .12em .75em .18em; border-radius: 8px; color: #fff; font-size: 21px; font-weight: 650;
}
.tfgad .badge.good, .tfgad .bar .good { background: $good; }
.tfgad .badge.bad, .tfgad .bar .bad { background: $bad; }
.tfgad .badge.none { background: #6b7280; }
.tfgad .name { font-weight: 600; overflow-wrap: anywhere; }
.tfgad .size { color: var(--body-text-color-subdued); }
.tfgad dl { display: flex; flex-wrap: wrap; gap: .2em 2.4em; margin: .7em 0 .5em; }
.tfgad dt { font-size: 13px; color: var(--body-text-color-subdued); }
.tfgad dd { margin: 0; font-size: 19px; font-variant-numeric: tabular-nums; }
.tfgad .bar {
  position: relative; height: 10px; border-radius: 5px; background: var(--border-color-primary);
}
.tfgad .bar i { position: absolute; inset: 0 auto 0 0; border-radius: 5px; opacity: .35; }
.tfgad .bar b {
  position: absolute; left: 50%; top: -5px; bottom: -5px; width: 2px; margin-left: -1px;
  background: var(--body-text-color);
}
.tfgad .bar em {
  position: absolute; top: -3px; width: 16px; height: 16px; margin-left: -8px; border-radius: 50%;
  border: 2px solid var(--body-background-fill);
}
.tfgad .bar em.beyond { border-radius: 3px; }
.tfgad .ends {
  display: grid; grid-template-columns: 1fr auto 1fr; margin-top: 6px; font-size: 13px;
  color: var(--body-text-color-subdued);
}
.tfgad .ends span:last-child { text-align: right; }
.tfgad figure { margin: 0; }
.tfgad h4 { margin: 0 0 .4em; font-size: 15px; font-weight: 600; color: inherit; }
.tfgad figcaption { margin-top: .5em; font-size: 13px; color: var(--body-text-color-subdued); }
.tfgad .stack {
  position: relative; cursor: zoom-in; aspect-ratio: var(--w) / var(--h);
  width: min(100%, calc(65vh * var(--w) / var(--h))); background: var(--border-color-primary);
}
.tfgad .stack:focus-visible { outline: 3px solid $good; outline-offset: 2px; }
.tfgad .stack img {
  position: absolute; inset: 0; width: 100%; height: 100%; max-width: none; margin: 0;
  border-radius: 0;
}
.tfgad .stack.pixelated img:not(.heat) { image-rendering: pixelated; }
.tfgad .stack .heat { opacity: var(--tfgad-heat, $heat); }
.tfgad .legend { display: flex; align-items: center; gap: .5em; max-width: 320px; }
.tfgad .legend i { flex: 1; height: 9px; border-radius: 4px; }
.tfgad .summary { font-size: 16px; }
.tfgad .summary b, .tfgad-mark { font-weight: 650; }
.tfgad .summary b.good, .tfgad-mark.good { color: $good_text; }
.tfgad .summary b.bad, .tfgad-mark.bad { color: $bad_text; }
.dark .tfgad .summary b.good, .dark .tfgad-mark.good { color: $good_dark; }
.dark .tfgad .summary b.bad, .dark .tfgad-mark.bad { color: $bad_dark; }
.tfgad-mark.none, .tfgad .summary b.none { color: var(--body-text-color-subdued); }
dialog.tfgad-full {
  position: fixed; inset: 0; margin: auto; max-width: 98vw; max-height: 98vh; padding: 0;
  border: 0; overflow: auto; cursor: zoom-out; background: var(--body-background-fill);
}
dialog.tfgad-full::backdrop { background: rgb(0 0 0 / 75%); }
dialog.tfgad-full .stack {
  width: max(calc(var(--w) * 1px), min(90vw, calc(90vh * var(--w) / var(--h)))); cursor: zoom-out;
}
main.fillable { padding-top: 14px !important; }
#tfgad-style { display: none; }
.gradio-container .html-container { padding: 2px 0; }
#tfgad-title { padding: 0; }
#tfgad-title h1 { display: inline; margin: 0 .5em 0 0; font-size: 22px; font-weight: 650; }
#tfgad-title p { display: inline; color: var(--body-text-color-subdued); }
#tfgad-shown { flex-wrap: wrap; gap: 14px; }
#tfgad-shown > * { flex: 1 1 260px; min-width: 0 !important; }
#tfgad-shown:has(.strip) > * { flex-basis: 100%; }
#tfgad-rate .tab-like-container, #tfgad-rate .min_value, #tfgad-rate .max_value { display: none; }
.gradio-container:not(:has(#tfgad-pictures .stack)) #tfgad-opacity,
.gradio-container:not(:has(.tfgad .judging)) #tfgad-stop,
.gradio-container:not(:has(#tfgad-summary .summary)) #tfgad-batch { display: none; }
#tfgad-files { min-height: 120px; }
#tfgad-csv { flex: 0 0 auto; margin-left: auto; }
#tfgad-examples .grid-wrap { height: auto; max-height: none; min-height: 0; padding: 8px; }
#tfgad-examples .grid-container {
  grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 6px; padding: 0;
}
#tfgad-examples .caption-label {
  right: 0; bottom: 0; max-width: 100%; padding: 0 5px; font-size: 11px; border: 0;
}
#tfgad-examples .thumbnail-item { aspect-ratio: 1; }
#tfgad-table * { font-family: var(--font); }
#tfgad-table { overflow-x: auto !important; }
#tfgad-table .table-container { min-width: 680px; }
#tfgad-table .selection-button { display: none; }
""").substitute(
    heat=OPACITY / 100,
    good=NORMAL,
    bad=ANOMALOUS,
    good_text=NORMAL,  # 5.2 to 1 on white
    bad_text="#B34700",  # 5.6 to 1 on white, where the house's own would have 3.9
    good_dark="#56B4E9",  # on nearly black
    bad_dark="#FF9A52",
)
