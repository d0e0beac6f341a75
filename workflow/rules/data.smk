"""Pictures: drawn (embedded benchmark) or found on disk, then listed and checked."""

SHEETS = [
    f"{R}/figures/sheets/{name}.{ext}"
    for name in exp.data.sets
    for ext in ("png", "svg")
]


rule render:
    input:
        render_needs,
    output:
        f"{R}/rendered/{{set}}.json",
    log:
        f"{R}/logs/render/{{set}}.log",
    benchmark:
        f"{R}/benchmarks/render/{{set}}.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        spec=spec(specs.render, "set"),
        root=exp.data.root,
        classes=exp.data.classes,
        recipe=RECIPES["render"],
    shell:
        "nsvit render --spec {params.spec:q} --root {params.root:q} --classes {params.classes:q}"
        " --out {output:q} --processes {threads} > {log:q} 2>&1"


rule scan:
    input:
        lambda w: f"{R}/rendered/{w.set}.json" if exp.data.menagerie else [],
    output:
        f"{R}/index/{{set}}.parquet",
    log:
        f"{R}/logs/scan/{{set}}.log",
    benchmark:
        f"{R}/benchmarks/scan/{{set}}.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        spec=spec(specs.scan, "set"),
        recipe=RECIPES["scan"],
    shell:
        "nsvit scan --spec {params.spec:q} --out {output:q} > {log:q} 2>&1"


rule contact_sheet:
    input:
        f"{R}/index/{{set}}.parquet",
    output:
        png=report(
            f"{R}/figures/sheets/{{set}}.png",
            category="Pictures",
            caption="../report/contact_sheet.rst",
            labels={"set": "{set}"},
        ),
        svg=f"{R}/figures/sheets/{{set}}.svg",
    log:
        f"{R}/logs/contact_sheet/{{set}}.log",
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        recipe=RECIPES["contact_sheet"],
    shell:
        "nsvit contact-sheet --index {input:q} --out {output.png:q} > {log:q} 2>&1"
