"""JSON Schema of every ``--json`` output, made by pydantic from the records that write it."""

from __future__ import annotations

from typing import Any

from nemofit.errors import UnknownNameError

from . import catalog_reports, choices, contract, reports

REPORTS: dict[str, type[contract.Envelope]] = {
    "check": reports.CheckReport,
    "recommend": contract.RecommendReport,
    "plan": contract.PlanReport,
    "compare": choices.CompareReport,
    "need": choices.NeedReport,
    "launch": reports.LaunchReport,
    "probe": reports.ProbeReport,
    "verify": reports.VerifyReport,
    "watch": reports.WatchReport,
    "calibrate": reports.CalibrateReport,
    "list-models": reports.ListModelsReport,
    "list-quants": reports.ListQuantsReport,
    "list-gpus": reports.ListGpusReport,
    "list-engines": reports.ListEnginesReport,
    "list-local": reports.ListLocalReport,
    "list-machines": reports.ListMachinesReport,
    "catalog-show": catalog_reports.CatalogShowReport,
    "catalog-add": catalog_reports.CatalogAddReport,
    "catalog-check": catalog_reports.CatalogCheckReport,
    "schema": reports.SchemaReport,
    "error": contract.ErrorReport,
}


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one command's output.

    Raises:
        UnknownNameError: No command prints such a document.
    """
    report = REPORTS.get(name)
    if report is None:
        from nemofit.catalog.names import near_misses

        raise UnknownNameError(
            "schema", name, near_misses(name, dict.fromkeys(REPORTS, ())) or tuple(REPORTS)
        )
    from pydantic import TypeAdapter

    adapter = TypeAdapter(report)
    found = adapter.json_schema(mode="serialization", ref_template="#/$defs/{model}")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
