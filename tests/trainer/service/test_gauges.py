import re
from pathlib import Path

from trainer.service.gauges import TrainingGauges

METRICS_PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


def test_the_documentation_names_every_series_of_the_trainer_and_no_other() -> None:
    families = list(TrainingGauges().registry.collect())
    exposed = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}

    documented = set(re.findall(r"^\| `(proxy_training_\w+)`", METRICS_PAGE.read_text(encoding="utf-8"), re.MULTILINE))

    assert documented == {name for name in exposed if not name.startswith("process_")}
