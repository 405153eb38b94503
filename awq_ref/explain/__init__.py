"""One layer of a model, step by step, as one HTML file.

subject    the layer, its calibration, its search
record     every number that the page shows
words      the words of each layout that hold the codes of a group
page       the record -> HTML; `page.html`, `page.css`, `drawings.js` and `page.js` lie beside it
"""

from awq_ref.explain.page import explain_layer, layer_page
from awq_ref.explain.record import layer_record
from awq_ref.explain.subject import Subject, Trial, open_subject

__all__ = ["Subject", "Trial", "explain_layer", "layer_record", "layer_page", "open_subject"]
