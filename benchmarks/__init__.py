"""Speed of nsvit beside other libraries, at equal work: `make bench`. Not part of the package.

`runner` times cases, `report` writes them down, and there is one module of cases for each stage:
`attacks`. A new stage is a function that returns cases, entered in `__main__.STAGES`.
"""
