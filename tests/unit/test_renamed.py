"""Names of earlier versions are read under today's."""

import pytest

from tests.fakes import fake_config
from workbench.core import renamed
from workbench.core.config import RunConfig


def test_a_setting_that_was_renamed_is_read_under_both_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(renamed.SETTINGS, "kl_weight", "beta")
    values = fake_config().model_dump(mode="json")
    former = {("kl_weight" if name == "beta" else name): value for name, value in values.items()}
    assert RunConfig.parse(former | {"kl_weight": 0.3}).beta == 0.3
    assert RunConfig.parse({"kl_weight": 0.3, "beta": 0.1}).beta == 0.1


def test_every_table_leads_to_names_that_are_no_former_ones() -> None:
    for table in (renamed.SETTINGS, renamed.RUN_KINDS, renamed.EVENT_KINDS):
        assert not set(table) & set(table.values())
    assert set(renamed.SETTINGS.values()) <= set(RunConfig.model_fields)
    assert renamed.spellings("paused", renamed.EVENT_KINDS) == ["paused", "held"]
