"""The bugs that cases catch: a name, and what one sees when it is in a backend.

FLAGS   name -> story

Cases name their flags; the manifest carries the stories. Sources: issues of AutoAWQ, llm-awq, GPTQModel, mlx-lm,
compressed-tensors and others, as named in the stories.
"""

FLAGS: dict[str, str] = {
    "Basic": "The plain case: random codes, nothing special.",
    "NibbleOrder": (
        "Nibbles of a word in another order (0 1 2 3 4 5 6 7 for 0 2 4 6 1 3 5 7, or its inverse). The "
        "model answers fluent nonsense: every eighth output is right."
    ),
    "NibbleSign": (
        "The top nibble is 8 or more, so the int32 word is negative. A shift that keeps the sign gives "
        "codes of -8 to -1, or 0xFFFFFFF8 where 8 was meant."
    ),
    "Transposed": (
        "Rows and columns differ in number, so that a transposed reading shows. Square layers hide it "
        "until the first MLP."
    ),
    "OddRows": "Sizes that are no power of two and no multiple of what a kernel likes to read.",
    "RandomWords": "Random bytes read as words: every bit pattern is a valid word, and must come back.",
    "ZeroPointZero": (
        "Zero point 0: GPTQ's minus 1 makes it -1, a nibble of 15 (GPTQModel issue 2350: 57276 wrong zero"
        " points, NaN perplexity)."
    ),
    "ZeroPointMax": "Zero point qmax: a plus 1 wraps to 0.",
    "GptqMinusOne": "GPTQ v1 stores the zero point less 1. Read as v2, every weight is one step too high.",
    "GptqBorrow": (
        "A zero point of 0 in GPTQ v1: the word-wise minus 1 borrows from the fields above. Adding 1 "
        "field by field gives wrong zero points in the rest of the word."
    ),
    "StraddlingCode": (
        "Codes of 3 bits: some lie across two words, and readers that take 10 codes a word lose them."
    ),
    "Padding": (
        "Scales and zero points are padded to what a kernel reads; the padding must be 0 and must not be "
        "read as groups."
    ),
    "LastWord": "The last word is not full: its upper bits are 0 and belong to no code.",
    "PairedBytes": (
        "Two codes of a byte are 16 (ARM), 32 (x86) or 4 (Metal) inputs apart, the first in the low nibble. Read as "
        "neighbours, every weight of a block but the first and the last is another's."
    ),
    "Blocks": (
        "GGUF keeps a scale before the codes of its 32 weights, as two bytes, the low one first, and repeats it in "
        "every block of a larger group."
    ),
    "NegativeScale": (
        "TinyChatEngine's scale has the sign of the block's largest weight, turned around. A reader that takes its "
        "absolute value, or stores it unsigned, mirrors half of the blocks."
    ),
    "Tiles": (
        "marlin's tiles of 16 x 16 lie in the order of a GPU's threads, and its scales in another; with one group "
        "for a whole row in a third."
    ),
    "Interleaved": (
        "Four outputs share a row of words and inputs 8 apart share a word (TinyChat). A reader that "
        "takes rows one by one mixes outputs."
    ),
    "FloatZeros": (
        "The zero points are stored as floats, -scale * zero, rounded. Read as integers they are huge; "
        "recomputed from a rounded product they are one off."
    ),
    "GroupIndex": (
        "Groups of arbitrary columns (g_idx). A reader that ignores the index uses a neighbour's scale."
    ),
    "WholeRow": (
        "group_size -1, one group for a row: -1 taken as a number divides by minus one (AutoAWQ issue 578)."
    ),
    "ManyGroups": (
        "Several groups in a row: a reader that repeats scales tile by tile instead of group by group is "
        "right only for one."
    ),
    "Symmetric": "No zero points are stored: they are the middle, 2^(bits-1), not 0.",
    "Float16Result": "The weight is rounded to float16 once, from the exact product; subnormal results too.",
    "ScaleSubnormal": (
        "A scale below 2^-14 has fewer bits in float16; flushing it to 0 gives dead groups and 0/0 "
        "(AutoAWQ issue 498)."
    ),
    "ScaleOverflow": "A scale above 65504 is infinite in float16: the answer is invalid, not inf weights.",
    "ScaleRounded": (
        "Codes are computed from the scale as it is stored. From the unrounded one, some codes differ by one."
    ),
    "AllZeroGroup": "A group of zeros: the floor of the range, 1e-5, keeps its scale positive.",
    "ConstantGroup": (
        "A group of one value: with the published range (minmax) it collapses to 1e-5, with the range "
        "that contains 0 it survives."
    ),
    "OneSidedGroup": (
        "All weights of one sign: the zero point cannot follow the published range; it saturates."
    ),
    "Outlier": "One weight is much larger than the others of its group.",
    "RoundingTie": (
        "A weight exactly between two codes: ties go to the even integer, before the zero point is added."
        " C's round() goes away from zero."
    ),
    "TieBeforeZero": (
        "rint(x) + z is not rint(x + z) when x is a tie and z is odd (compressed-tensors adds first)."
    ),
    "SymmetricDivisor": (
        "Symmetric scales are max / (2^(bits-1) - 1): 7 at 4 bits. Others divide by 7.5 or 8."
    ),
    "ClippedRange": "Weights are clamped before the range is taken, and the clamped weights are quantized.",
    "NotFinite": (
        "A NaN or an infinity in a weight is invalid. Unchecked, it spreads over its group or becomes code 0."
    ),
    "BadCode": "A code above qmax would spill into its neighbour's bits.",
    "BadShape": "A tensor whose shape contradicts the configuration.",
    "SmallGroup": "Groups smaller than a word.",
    "LastGroup": (
        "The last group's scale and zero point differ much from the others': a loop that stops one group "
        "early, or keeps the group before, is wrong only here."
    ),
    "Cancellation": "Positive and negative products nearly cancel: what is lost in float16 sums shows.",
    "LongSum": "Many terms: an accumulator in float16 stalls or overflows where float32 does not.",
    "HalfAccumulate": "Products and sums in float16 are admitted, and bounded.",
    "Bias": "A bias is added, once, after the sum over groups.",
    "Batch": (
        "Several tokens: a kernel for one token that writes over its output, or a stride of the wrong axis."
    ),
    "ActivationGroups": (
        "Activations are quantized by groups of their own; d = max / 127, symmetric, ties to even."
    ),
    "ActivationZero": "A group of activations that is all zero: scale 0, codes 0, no 0/0.",
    "MeanNotMax": "The statistic is the mean of |x|, though llm-awq calls it x_max.",
    "DeadChannel": (
        "A channel that is always 0: its scale is 1 and it moves no other (llm-awq: it moves all)."
    ),
    "AlphaEnds": "alpha 0 leaves everything alone, alpha 1 is the statistic itself.",
    "Normalized": "The scales are divided by sqrt(max * min), so that their extremes are reciprocal.",
    "FullGram": (
        "The loss takes the whole Gram matrix; with its diagonal alone correlated channels are misjudged."
    ),
    "ScalesUndone": "The rounded weight is divided by the channel scales again before it is compared.",
    "FirstOfEqual": "Of equal losses the first wins.",
    "ClipSearch": "The ratio of least loss for every row and group by itself.",
    "NormEps": "x is small, so that eps decides the norm: added under the root, once, not to the root.",
    "NormMean": "layer_norm subtracts the mean; rms_norm does not.",
    "RopePairs": (
        "Channel i turns with i + D/2 (Hugging Face) or with its neighbour (original): the other "
        "convention is a permuted model."
    ),
    "RopePartial": "Only the first channels of a head turn, and the exponents count those alone.",
    "RopeScaled": "Frequencies are rescaled for long contexts; llama3 blends between two wave lengths.",
    "RopeDynamic": (
        "The base grows with the text, from the original length on: with a base that grows below it, or to another "
        "power than D / (D - 2), all keys are turned wrongly."
    ),
    "RopeYarn": (
        "Fast pairs stay, slow ones are divided, with a ramp between: linear in the pair's number, its ends rounded "
        "outwards unless `truncate` is false, and held to the pairs that there are."
    ),
    "RopeLong": (
        "Two lists of divisors: the length of the whole text chooses, not the position of a token, and all tokens "
        "take the same one."
    ),
    "RopeBoundary": "A text of exactly the original length is still short; with one token more it is long.",
    "RopeAttention": (
        "Cosines and sines are multiplied by a factor that follows from the stretch. Left out, or used for yarn and "
        "longrope alike, scores are off by its square, and long texts lose their sharpness."
    ),
    "GroupedQueries": (
        "Several query heads read one key-value head: head h reads h div ratio, not h mod kv_heads."
    ),
    "CausalMask": "A query sees its own column and none after it; the mask starts where the cache ends.",
    "Window": "A sliding window counts the query's own column.",
    "SoftCap": "Scores are capped after scaling and before the softmax.",
    "LargeScores": "Scores of some hundreds: without subtracting the maximum exp overflows.",
    "CachePosition": "Keys in the cache are turned already; new tokens stand behind them.",
    "GateAndUp": "The activation acts on the gate, not on up.",
    "Greedy": (
        "64 tokens, each the largest logit, with a stated margin: one wrong token changes all that follow."
    ),
    "Float": "The model with float weights.",
    "Int4": "The same model with integers in its linears.",
}
