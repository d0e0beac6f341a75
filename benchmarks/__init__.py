"""Speed of nsvit beside the published procedure and other libraries, at equal work: `make bench`.

Not part of the package. `runner` times cases, `report` writes them down, `goals` says what was to
be reached, `naive` is the published procedure, and there is one module of cases for each stage. A
new stage is a function that returns cases, entered in `__main__.STAGES`.
"""
