"""Verbs of the rules that compute: pictures, models, noise, finetuning, evaluation."""

from __future__ import annotations

from nsvit import runtime, specs
from nsvit.verbs.spec import Args, read_spec

# --- data -----------------------------------------------------------------------------------


def render(args: Args) -> None:
    """Draw one set of the embedded benchmark."""
    from nsvit.data.menagerie import render_to

    spec = read_spec(specs.RenderSpec, args)
    render_to(spec, args.root, args.classes, args.out, processes=args.processes)


def render_transfer(args: Args) -> None:
    """Attack pictures of the embedded benchmark's val set on a CNN of its own."""
    from nsvit import transfer

    runtime.prepare(args.threads)
    transfer.render_to(read_spec(specs.TransferSpec, args), args.root, args.out, inputs=[args.val])


def corrupt(args: Args) -> None:
    """Corrupt pictures of one set in every published way, as a set of its own."""
    from nsvit.data import corrupted

    spec = read_spec(specs.CorruptSpec, args)
    corrupted.write(spec, args.index, args.root, args.out, processes=args.processes)


def scan(args: Args) -> None:
    """List and check the pictures of one set on disk."""
    from nsvit.data import layouts

    layouts.write_index(read_spec(specs.ScanSpec, args), args.out, args.threads)


def contact_sheet(args: Args) -> None:
    """Draw the contact sheet of one set."""
    from nsvit.data import layouts, sheets

    sheets.contact_sheet(layouts.open_set(args.index), args.out)


# --- models and their nullspace --------------------------------------------------------------


def pretrain_model(args: Args) -> None:
    """Train one model from scratch."""
    from nsvit import pretrain
    from nsvit.data import layouts

    runtime.prepare(args.threads)
    spec = read_spec(specs.PretrainSpec, args)
    split = spec.split
    train, dev = layouts.split_dev(layouts.open_set(args.train), split.dev_images, split.seed)
    pretrain.pretrain(spec, train, dev, layouts.open_set(args.val), args.out.parent)


def prepare_model(args: Args) -> None:
    """Load, check and store one model under test."""
    from nsvit import models
    from nsvit.data import layouts

    spec = read_spec(specs.PrepareSpec, args)
    models.prepare(spec, layouts.open_set(args.index), args.out)


def nullspace(args: Args) -> None:
    """Compute and demonstrate the exact nullspace of the patch embedding."""
    from nsvit import models
    from nsvit import nullspace as exact
    from nsvit.data import layouts

    runtime.prepare(args.threads)
    model = models.load_model(args.model)  # on the CPU: seconds, and its rule asks for no GPU
    spec = read_spec(specs.NullspaceSpec, args)
    exact.run(spec, model, layouts.open_set(args.index), args.out, inputs=[args.model])


def nullity(args: Args) -> None:
    """Tabulate the nullity that timm's architectures have by their shape."""
    from nsvit import nullspace as exact

    spec = read_spec(specs.NullitySpec, args)
    exact.write_nullity(spec, args.out)


# --- noise ----------------------------------------------------------------------------------


def learn_noise(args: Args) -> None:
    """Learn approximate nullspace noise at every block."""
    from nsvit import distributed, influence, models
    from nsvit.data import layouts

    runtime.prepare(args.threads)
    distributed.start()
    model = models.load_model(args.model).to(runtime.device())
    spec = read_spec(specs.LearnSpec, args)
    influence.run_learn(spec, model, layouts.open_set(args.index), args.out, inputs=[args.model])


def influence(args: Args) -> None:
    """Measure learned, permuted and Gaussian noise on held-out pictures."""
    from nsvit import influence, models
    from nsvit.data import layouts

    runtime.prepare(args.threads)
    model = models.load_model(args.model).to(runtime.device())
    spec = read_spec(specs.InfluenceSpec, args)
    train = layouts.open_set(args.index)
    influence.run_measure(spec, model, train, args.noise, args.out, inputs=[args.model])


def lambda_study(args: Args) -> None:
    """Learn noise with every lambda and measure it on held-out pictures."""
    from nsvit import distributed, lambda_study, models
    from nsvit.data import layouts

    runtime.prepare(args.threads)
    distributed.start()
    model = models.load_model(args.model).to(runtime.device())
    spec = read_spec(specs.LambdaSpec, args)
    train = layouts.open_set(args.index)
    lambda_study.run(spec, model, train, args.out, args.closure, inputs=[args.model, args.index])


# --- finetuning and evaluation --------------------------------------------------------------


def finetune(args: Args) -> None:
    """Finetune one model with one arm and one seed."""
    from nsvit import finetuning, models
    from nsvit.data import layouts

    runtime.prepare(args.threads)
    spec = read_spec(specs.FinetuneSpec, args)
    split = spec.split
    train, dev = layouts.split_dev(layouts.open_set(args.index), split.dev_images, split.seed)
    model = models.load_model(args.model)
    finetuning.finetune(model, train, dev, spec, args.out.parent, inputs=[args.model, args.index])


def evaluate(args: Args) -> None:
    """Evaluate runs of one arm under the conditions of one job."""
    from nsvit import matrix
    from nsvit.data import layouts

    runtime.prepare(args.threads)
    spec = read_spec(specs.EvaluateSpec, args)
    sets = [layouts.open_set(path) for path in args.indices]
    indices = {s.name: path for s, path in zip(sets, args.indices, strict=True)}
    matrix.run(spec, args.models, {s.name: s for s in sets}, args.out, indices)


def dynamics(args: Args) -> None:
    """Evaluate every round of one run on subsets."""
    from nsvit import evaluation
    from nsvit.data import layouts

    runtime.prepare(args.threads)
    spec = read_spec(specs.DynamicsSpec, args)
    sets = {s.name: s for s in map(layouts.open_set, args.indices)}
    evaluation.run_dynamics(spec, args.run.parent, sets, args.out, inputs=[args.run, *args.indices])
