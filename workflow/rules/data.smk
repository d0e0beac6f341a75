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


# Set damagenet is made from val with torch, by a verb of its own.
ruleorder: render_transfer > render


rule render_transfer:
    input:
        val=f"{R}/rendered/val.json",
        cnn=lambda w: weights(exp.data.menagerie.transfer.cnn),
    output:
        f"{R}/rendered/damagenet.json",
    log:
        f"{R}/logs/render_transfer.log",
    benchmark:
        f"{R}/benchmarks/render_transfer.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        spec=spec(specs.render_transfer),
        root=exp.data.root,
        recipe=RECIPES["render_transfer"],
    shell:
        "nsvit render-transfer --spec {params.spec:q} --root {params.root:q} --val {input.val:q}"
        " --out {output:q} --threads {threads} > {log:q} 2>&1"


# A set that is made from the pictures of another one, with any number of processes the same.
rule corrupt:
    input:
        lambda w: index(exp.data.sets[w.set].corrupt.source),
    output:
        f"{R}/corrupted/{{set}}.json",
    log:
        f"{R}/logs/corrupt/{{set}}.log",
    benchmark:
        f"{R}/benchmarks/corrupt/{{set}}.tsv"
    threads: 4
    resources:
        mem_mb=memory("corrupt", "set"),
        runtime=minutes("corrupt", "set"),
    params:
        spec=spec(specs.corrupt, "set"),
        root=specs.made_root(exp),
        recipe=RECIPES["corrupt"],
    shell:
        "nsvit corrupt --spec {params.spec:q} --index {input:q} --root {params.root:q}"
        " --out {output:q} --processes {threads} > {log:q} 2>&1"


rule scan:
    input:
        made_pictures,
    output:
        f"{R}/index/{{set}}.parquet",
    log:
        f"{R}/logs/scan/{{set}}.log",
    benchmark:
        f"{R}/benchmarks/scan/{{set}}.tsv"
    priority: 20  # a damaged picture shows before anything is computed
    # On disk there may be millions of pictures: ImageNet-C has 3.75 million.
    threads: 1 if exp.data.menagerie else 8
    resources:
        mem_mb=memory("scan", "set") if exp.data.menagerie else 8000,
        runtime=minutes("scan", "set") if exp.data.menagerie else 720,
    params:
        spec=spec(specs.scan, "set"),
        recipe=RECIPES["scan"],
    shell:
        "nsvit scan --spec {params.spec:q} --out {output:q} --threads {threads} > {log:q} 2>&1"


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
    benchmark:
        f"{R}/benchmarks/contact_sheet/{{set}}.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        recipe=RECIPES["contact_sheet"],
    shell:
        "nsvit contact-sheet --index {input:q} --out {output.png:q} > {log:q} 2>&1"
