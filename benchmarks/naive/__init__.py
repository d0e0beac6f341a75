"""The published procedure as its code does it, in our own words, to be compared with nsvit.

Readable and wasteful where the published code is (METHOD.md sections 4, 5 and 8): weights keep
gradients while noise is learned, clean passes are repeated at every step, every step runs the
whole network, finetuning makes separate passes for clean and noisy tokens, everything is in
single precision, every condition decodes and classifies its pictures anew, and attacks do all of
their steps on every picture. Nothing is made slower than that: batches, threads, timm's own
modules and torch's own kernels are the same on both sides. Random numbers come from nsvit, so
that results can be compared.
"""
