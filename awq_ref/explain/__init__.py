"""One layer of a model, step by step, as one HTML file.

subject    the layer, its calibration, its search
record     every number that the page shows
words      the words of each layout that hold the codes of a group
page       the record -> HTML; `page.html`, `page.css`, `drawings.js` and `page.js` lie beside it
command    `awq-ref explain`
"""
