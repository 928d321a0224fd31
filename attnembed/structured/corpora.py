"""Readers of three data sets of structured prediction, from the files in which they are distributed.

============  =====================================================================================================
letters       handwritten words, a 16 x 8 image per letter (Taskar, Guestrin and Koller, NeurIPS 2003)
sentences     words with tags, as in the CoNLL-2000 shared task (Tjong Kim Sang and Buchholz, CoNLL 2000)
horses        images and masks of the Weizmann horse database (Borenstein and Ullman, ECCV 2002)
============  =====================================================================================================

A path may name the file or the folder that holds it. Text may be compressed with gzip, bzip2 or xz, which is detected
from the first bytes.
"""

from attnembed.structured.horses import load_horses
from attnembed.structured.letters import Letters, load_ocr
from attnembed.structured.sentences import Sentence, load_conll2000, load_sentences

__all__ = ["Letters", "Sentence", "load_conll2000", "load_horses", "load_ocr", "load_sentences"]
