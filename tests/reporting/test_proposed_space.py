"""The space that the doctor proposes: what it keeps, and that it can be searched."""

from pathlib import Path

import pytest

from tests.reporting.made_up_search import log_lr, noise, proposed, searched
from tunekit.reporting.doctor import examine_space
from tunekit.reporting.proposed_space import propose_space
from tunekit.reporting.report import write_report
from tunekit.tuning.earlier_search import read_earlier


def test_what_the_advice_leaves_alone_stays_as_it_was(tmp_path: Path) -> None:
    facts = searched(
        tmp_path, lambda params: noise(params) + 0.1 * log_lr(params), fixed={"model.dropout": 0.1}
    )
    text = propose_space(facts, examine_space(facts))
    space = proposed(facts, tmp_path)

    assert text is not None
    changed = {key for key, parameter in space.parameters.items() if parameter != facts.space.parameters[key]}
    assert changed == {"optim.lr"}
    assert list(space.parameters) == list(facts.space.parameters)
    assert space.fixed == {"schedule.name": "cosine", "model.dropout": 0.1}
    assert space.baselines == facts.space.baselines
    assert facts.paths.name in space.description and "made up" in space.description
    for comment in ("# One learning rate for all.", "# as everybody does", "# the peak", "# How much noise"):
        assert comment in text
    above = text[: text.index('"optim.lr" =')].splitlines()[-1]
    assert above.startswith("# ") and '"optim.name"' not in above


def test_the_proposed_space_can_start_from_its_search(tmp_path: Path) -> None:
    facts = searched(
        tmp_path,
        lambda params: (
            None if params["model.name"] == "resnet32" else noise(params) - 0.2 * abs(log_lr(params) + 2)
        ),
        trials=80,
    )

    earlier = read_earlier(facts.paths, proposed(facts, tmp_path))

    best = facts.history.best()
    assert best is not None and earlier.best[0] == best.params


def test_the_proposed_space_leaves_warm_starts_and_prior_to_its_search(tmp_path: Path) -> None:
    text = """
prior = "mine.prior.json.gz"
[space]
"optim.lr" = { low = 1e-3, high = 0.1, log = true }

[[warm_start]]
"optim.lr" = 0.02
"""
    facts = searched(tmp_path, lambda params: noise(params) + 0.1 * log_lr(params), space=text)
    assert len(facts.space.warm_starts) == 1 and facts.space.prior
    space = proposed(facts, tmp_path)
    assert (space.warm_starts, space.prior) == ((), "")


def test_a_space_whose_keys_are_tables_of_their_own_is_edited_too(tmp_path: Path) -> None:
    text = """
[space."optim.lr"]
low = 1e-3
high = 0.1
log = true

[space."schedule.warmup"]
low = 0.0
high = 0.2
"""
    facts = searched(tmp_path, lambda params: noise(params) + 0.1 * log_lr(params), space=text)

    space = proposed(facts, tmp_path)

    assert space.parameters["optim.lr"].high == pytest.approx(1.0)
    assert space.parameters["schedule.warmup"] == facts.space.parameters["schedule.warmup"]


def test_a_space_that_stands_in_pieces_is_edited_too(tmp_path: Path) -> None:
    text = """
[space."optim.lr"]
low = 1e-3
high = 0.1
log = true

[fixed]
"schedule.name" = "cosine"

[space."schedule.warmup"]
low = 0.0
high = 0.2
"""
    facts = searched(tmp_path, lambda params: noise(params) + 0.1 * log_lr(params), space=text)

    space = proposed(facts, tmp_path)

    assert set(space.parameters) == {"optim.lr", "schedule.warmup"}
    assert space.parameters["optim.lr"].high == pytest.approx(1.0)
    assert space.fixed == {"schedule.name": "cosine"}


def test_it_lies_beside_the_report_as_long_as_there_is_evidence(tmp_path: Path) -> None:
    facts = searched(
        tmp_path,
        lambda params: (
            None if params["model.name"] == "resnet32" else noise(params) - 0.2 * abs(log_lr(params) + 2)
        ),
        trials=80,
    )
    write_report(facts.paths)
    assert facts.paths.proposed_space.read_text() == propose_space(facts, examine_space(facts))
    with facts.paths.history.open("w"):  # the search begins anew
        pass
    write_report(facts.paths)
    assert not facts.paths.proposed_space.exists()
