"""Everything that Dagster knows: what lies in defs/, and one pass over all assets for what they have in common."""

from pathlib import Path

from dagster import AssetSpec, Definitions, definitions, load_from_defs_folder

OWNERS = ["team:market-data"]


def _with_common(spec: AssetSpec) -> AssetSpec:
    return spec.merge_attributes(owners=OWNERS, tags={"domain": "market-data"})


@definitions
def defs() -> Definitions:
    loaded = load_from_defs_folder(path_within_project=Path(__file__).parent)
    return loaded.map_asset_specs(func=_with_common)
