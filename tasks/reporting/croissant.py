"""``croissant.json`` of a version: its files with their digests and the columns of its tables, as MLCommons describes
data sets.

    write_croissant(home, version)      reports/<version16>/croissant.json

Names of files are relative to the version's folder, so the file is to be put beside them: into an export (``policylong
export --croissant`` does), a repository of a hub. It is no part of the version. Made by ``mlcroissant`` (extra
``croissant``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.digests import short
from storage.errors import ConfigError
from storage.files import write_bytes
from storage.home import Home
from storage.manifests import Manifest, shard_name
from storage.schemas import TABLES, Column
from storage.versions import load_manifest
from tasks.rounds.dataset_card import TAGS

CROISSANT = "croissant.json"
PARQUET = "application/x-parquet"
_ENCODINGS = {".parquet": PARQUET, ".json": "application/json", ".md": "text/markdown"}
LICENCE = "The texts are the corpus's: its licences apply."


def write_croissant(home: Home, version: str) -> Path:
    """Writes the description of a version, given as ``load_manifest`` takes it, into its folder of reports.

    Raises ``ConfigError`` when mlcroissant is not installed, else what ``load_manifest`` raises.
    """
    manifest = load_manifest(home, version)
    path = home.folder(f"reports/{short(manifest.version, 16)}") / CROISSANT
    write_bytes(path, described(manifest))
    return path


def described(manifest: Manifest) -> bytes:
    """The bytes of ``croissant.json``; raises what ``croissant`` raises."""
    return (json.dumps(croissant(manifest), indent=1, ensure_ascii=False) + "\n").encode()


def croissant(manifest: Manifest) -> dict[str, Any]:
    """The description as JSON-LD; the same manifest gives the same one."""
    try:
        import mlcroissant as mlc
    except ModuleNotFoundError as error:
        raise ConfigError(
            "croissant.json is written by mlcroissant, which is not installed.",
            hint="pip install 'policylong[croissant]'",
        ) from error
    context = mlc.Context()
    version = manifest.version
    tables = [name for name in TABLES if manifest.names(name)]
    files = [
        mlc.FileObject(
            ctx=context,
            id=name,
            name=name,
            content_url=name,
            content_size=f"{entry.bytes} B",
            sha256=entry.sha256,
            encoding_formats=[_ENCODINGS.get(Path(name).suffix, "application/octet-stream")],
        )
        for name, entry in sorted(manifest.files.items())
    ]
    sets = [
        mlc.FileSet(
            ctx=context,
            id=f"{table}-files",
            name=f"{table}-files",
            description=f"The shards of table {table}.",
            encoding_formats=[PARQUET],
            includes=[shard_name(table, 0).replace("-00000.parquet", "-*.parquet")],
        )
        for table in tables
    ]
    described = mlc.Metadata(
        ctx=context,
        name=f"{manifest.recipe}-round-{manifest.round}-{short(version)}",
        description=f"Long-context training samples of round {manifest.round}, recipe {manifest.recipe}, with every"
        f" verdict behind them. The dataset version is {version}.",
        keywords=[*TAGS],
        url=f"urn:sha256:{version}",
        license=[LICENCE],
        version=f"1.0.0+{short(version, 16)}",
        cite_as=f"policylong dataset version {version}",
        distribution=[*files, *sets],
        record_sets=[_records(mlc, context, table) for table in tables],
    )
    found: dict[str, Any] = described.to_json()
    return found


def _records(mlc: Any, context: Any, table: str) -> Any:
    schema = TABLES[table]
    return mlc.RecordSet(
        ctx=context,
        id=table,
        name=table,
        description=schema.meaning,
        fields=[_field(mlc, context, table, column) for column in schema.columns],
    )


def _field(mlc: Any, context: Any, table: str, column: Column) -> Any:
    kind, repeated = column.type, pa.types.is_list(column.type)
    if repeated:
        kind = kind.value_type
    own = {"ctx": context, "id": f"{table}/{column.name}", "name": column.name, "description": column.meaning}
    if pa.types.is_struct(kind):
        parts = [
            mlc.Field(
                ctx=context,
                id=f"{table}/{column.name}/{part.name}",
                name=part.name,
                data_types=_data_type(mlc, part.type),
                source=_source(mlc, context, table, column.name, part.name),
            )
            for part in kind
        ]
        return mlc.Field(**own, repeated=repeated or None, sub_fields=parts)
    return mlc.Field(
        **own,
        data_types=_data_type(mlc, kind),
        repeated=repeated or None,
        source=_source(mlc, context, table, column.name),
    )


def _source(mlc: Any, context: Any, table: str, column: str, part: str = "") -> Any:
    transforms = [mlc.Transform(ctx=context, json_path=f"[*].{part}")] if part else []
    extract = mlc.Extract(ctx=context, column=column)
    return mlc.Source(ctx=context, file_set=f"{table}-files", extract=extract, transforms=transforms)


def _data_type(mlc: Any, kind: pa.DataType) -> Any:
    known = mlc.DataType
    return {
        pa.bool_(): known.BOOL,
        pa.int32(): known.INT32,
        pa.int64(): known.INT64,
        pa.float32(): known.FLOAT32,
        pa.float64(): known.FLOAT64,
        pa.string(): known.TEXT,
    }[kind]
