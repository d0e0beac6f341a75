"""Verbs for people about the pictures on their disk. None loads torch."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from nsvit import config
from nsvit.errors import NsvitError
from nsvit.verbs.spec import Args

log = logging.getLogger("nsvit")


def check_data(args: Args) -> None:
    """Check that the sets of a configuration are on disk as published, and its weights there."""
    from nsvit import planning
    from nsvit.data import advice, checks, weights

    exp, named = config.load(*args.config), " + ".join(map(str, args.config))
    reports = checks.check(exp.data, None if args.full else args.sample)
    models, root = weights.check_weights(exp), Path(exp.data.root)
    disk_mb = planning.make_plan(exp, planning.speed_of("a100")).stages[-1].disk_mb
    room = advice.Room(Path("results") / exp.experiment, disk_mb * 1e6)
    if args.json:
        found = advice.as_json(reports, models, room, root)
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        sys.stdout.write(advice.as_text(reports, models, room, _as_given(args.config), root))
    lost = [slug for report in models if not report.is_good for slug in report.slugs]
    bad = [report.slug for report in reports if not report.is_good]
    wrong = [f"models that {named} uses and whose weights are missing: {', '.join(lost)}"]
    wrong = wrong if lost else []
    if bad:
        wrong.append(f"sets that {named} uses and that are not good: {', '.join(bad)}")
    if wrong:
        raise NsvitError("; ".join(wrong))


def _as_given(files: Sequence[Path]) -> str:
    """Configuration files as `fetch-data` takes them."""
    return " --config ".join(map(str, files))


def fetch_data(args: Args) -> None:
    """Download and unpack the published sets of a configuration that have a public archive."""
    from nsvit.data import advice, fetch
    from nsvit.data.published import PUBLISHED

    data, named = config.load(*args.config).data, " + ".join(map(str, args.config))
    known = {slug: own for slug, own in data.sets.items() if own.published is not None}
    if unknown := [slug for slug in args.sets if slug not in known]:
        raise NsvitError(
            f"{named}: data.sets has no {unknown[0]!r} with a key `published`, only "
            f"{', '.join(known) or 'none'}"
        )
    if not known:
        log.info("%s: no published sets, nothing to fetch", named)
    for slug in args.sets or known:
        own = PUBLISHED[cast("config.PublishedName", known[slug].published)]
        folder = Path(data.root) / known[slug].path
        if own.archives and not args.dry_run:
            fetch.fetch(own, Path(data.root), known[slug].path, keep_archives=args.keep_archives)
        elif not folder.is_dir():
            text = "\n".join(advice.advice(own, slug, _as_given(args.config)))
            sys.stdout.write(f"{slug}  {own.title}, into {folder}\n{text}\n")
