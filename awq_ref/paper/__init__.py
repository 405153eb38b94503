"""The experiments of the paper, each reproducible by one command: `awq-ref paper NAME`.

experiment    what an experiment is: Options in, rows out, a table, a figure
registry      the experiments by name; run one
bench         the model under test: calibration, quantized models, perplexity and KL
capacity      is there memory enough, asked before anything is loaded
linears       the linears of a model exchanged for others
shapes        the sizes of well-known models, and of any config.json
work          operations and bytes of a linear, and of a decoder, from shapes
machine       this machine's read bandwidth and FLOP/s, measured
output        the figure and the JSON of a result

Every other module of this room is one experiment. Source: Lin et al. 2023, arXiv:2306.00978; docs/paper/index.md.
"""
