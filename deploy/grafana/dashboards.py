"""Makes the Grafana dashboards `node.json` and `fleet.json` beside this file.

    python deploy/grafana/dashboards.py           writes both
    python deploy/grafana/dashboards.py --check   tells whether they are what this file makes

Needs the package grafana-foundation-sdk (extra `test`). Never edit the JSON: a test compares it, and runs every
expression against a real Prometheus that scrapes a real node.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as enums
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from panels import FLEET, HEAT, HOUSE, NUMBERS, SPEED, WORK, Panel, Query

HERE = Path(__file__).parent
SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
Mapping = model.ValueMap | model.RangeMap | model.RegexMap | model.SpecialValueMap


def _query(query: Query, letter: str, kind: str) -> prometheus.Dataquery:
    built = (
        prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter).datasource(SOURCE)
    )
    if kind == "table":
        return built.instant().format(PromQueryFormat.TABLE)
    if kind == "number":
        # Over a range Grafana shows the last value there was: a dead node would stay `ready`.
        return built.instant()
    return built.range()


def _words(words: dict[str, tuple[str, str]]) -> list[Mapping]:
    options = {
        value: model.ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, (text, colour)) in enumerate(words.items())
    }
    return [model.ValueMap(options=options)]


def _built(panel: Panel) -> timeseries.Panel | stat.Panel | table.Panel:
    built: timeseries.Panel | stat.Panel | table.Panel
    if panel.kind == "number":
        built = (
            stat.Panel().color_mode(enums.BigValueColorMode.VALUE).graph_mode(enums.BigValueGraphMode.NONE)
        )
    elif panel.kind == "table":
        built = table.Panel()
    else:
        built = _lines(panel)
    built = built.title(panel.title).description(panel.says).datasource(SOURCE).unit(panel.unit)
    built = built.span(panel.width).height(panel.height)
    if panel.words is not None:
        built = built.mappings(_words(panel.words))
    for letter, query in zip("ABCDEF", panel.queries, strict=False):
        built = built.with_target(_query(query, letter, panel.kind))
    return built


def _lines(panel: Panel) -> timeseries.Panel:
    built = timeseries.Panel().line_width(1).fill_opacity(30 if panel.kind == "stack" else 0)
    legend = common.VizLegendOptions().show_legend(True).placement(enums.LegendPlacement.BOTTOM)
    built = built.legend(legend.display_mode(enums.LegendDisplayMode.LIST).calcs(["lastNotNull"]))
    built = built.tooltip(common.VizTooltipOptions().mode(enums.TooltipDisplayMode.MULTI))
    if panel.least is not None:
        built = built.min(panel.least)
    if panel.kind == "stack":
        built = built.stacking(common.StackingConfig().mode(enums.StackingMode.NORMAL))
    if any(query.legend.startswith("trip:") for query in panel.queries):
        dashes = model.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [8, 8]})
        built = built.override_by_regexp("/^trip: /", [dashes])
    return built


def _dashboard(uid: str, title: str, says: str, rows: tuple[tuple[str, tuple[Panel, ...]], ...]) -> str:
    made = dashboard.Dashboard(title).uid(uid).description(says).tags(["edged"])
    made = made.refresh("15s").time("now-6h", "now").timezone("browser").readonly()
    made = made.tooltip(model.DashboardCursorSync.CROSSHAIR)
    made = made.with_variable(
        dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    )
    instance = (
        dashboard.QueryVariable("instance").label("Node").datasource(SOURCE).multi(True).include_all(True)
    )
    instance = instance.query("label_values(edged_info, instance)").refresh(
        model.VariableRefresh.ON_TIME_RANGE_CHANGED
    )
    made = made.with_variable(instance.all_value(".*").sort(model.VariableSort.ALPHABETICAL_ASC))
    numbers = itertools.count(1)
    for row, panels in rows:
        made = made.with_row(dashboard.Row(row).id(next(numbers)))
        for panel in panels:
            made = made.with_panel(_built(panel).id(next(numbers)))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def made() -> dict[str, str]:
    """The dashboards by file name, as JSON."""
    return {
        "node.json": _dashboard(
            "edged-node",
            "edged: node",
            "One node or several beside each other: work, speed, heat, the house.",
            (("Now", NUMBERS), ("Work", WORK), ("Speed", SPEED), ("Heat", HEAT), ("House", HOUSE)),
        ),
        "fleet.json": _dashboard(
            "edged-fleet", "edged: fleet", "All nodes together.", (("Now", FLEET[:7]), ("By node", FLEET[7:]))
        ),
    }


def main(arguments: list[str]) -> int:
    """Write or check; returns the exit code."""
    wrong = 0
    for name, text in made().items():
        path = HERE / name
        if "--check" in arguments:
            if not path.exists() or path.read_text("utf-8") != text:
                sys.stderr.write(f"{name} is not what dashboards.py makes: run it\n")
                wrong = 1
        else:
            path.write_text(text, "utf-8")
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
