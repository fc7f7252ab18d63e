"""Artifacts in a bucket: a real S3 server, moto's, in a process of its own."""

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import optuna
import pytest

from evomerge_optuna.errors import StorageError, UsageError
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.store.artifacts import open_artifacts
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.studies import MergeStudy, delete_study
from tests.conftest import CommandLine, SpecMaker, dashboard_of, wait_until


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that knows no buckets yet."""
    log = tmp_path_factory.mktemp("s3") / "log"
    command = [sys.executable, "-m", "moto.server", "-p", "0"]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        running = re.compile(r"Running on (http://\S+)")
        wait_until(lambda: bool(running.search(log.read_text())), lambda: process.poll() is None)
        yield running.findall(log.read_text())[0]
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def s3(s3_server: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the server, which this process's variables name."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return boto3.Session().client("s3")


@pytest.fixture
def bucket(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of this test's own, which `EVOMERGE_ARTIFACTS` names."""
    name = f"bucket-{tmp_path.name}".replace("_", "-").lower()[:63].rstrip("-")
    s3.create_bucket(Bucket=name)
    monkeypatch.setenv("EVOMERGE_ARTIFACTS", f"s3://{name}")
    return name


@pytest.fixture
def merge_study(bucket: str, make_spec: SpecMaker) -> MergeStudy:
    return create_study(open_store(), make_spec())


def keys(s3: Any, bucket: str) -> list[str]:
    return [found["Key"] for found in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_a_study_keeps_its_artifacts_in_a_bucket(
    s3: Any, bucket: str, merge_study: MergeStudy, home: Path
) -> None:
    run_trials(merge_study, 4)
    rdb = merge_study.store.rdb
    kept = [
        meta.artifact_id
        for trial in merge_study.trials()
        for meta in optuna.artifacts.get_all_artifact_meta(trial, storage=rdb)
    ]
    assert kept and sorted(kept) == sorted(keys(s3, bucket))
    for key in kept:
        content = s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()
        assert len([json.loads(line) for line in content.splitlines()]) == 20
        assert merge_study.store.artifacts.open_reader(key).read().decode() == content
    assert not (home / "artifacts").exists()

    s3.put_object(Bucket=bucket, Key="of-someone-else", Body=b"")
    delete_study(merge_study.store, "tiny")
    assert keys(s3, bucket) == ["of-someone-else"]


def test_the_dashboard_serves_them(s3: Any, bucket: str, merge_study: MergeStudy) -> None:
    run_trials(merge_study, 1)
    key, _ = keys(s3, bucket)  # its answers on search and on dev
    address = dashboard_of(merge_study.store)
    (trial,) = merge_study.trials()
    url = f"{address}artifacts/{merge_study.study._study_id}/{trial._trial_id}/{key}"
    with urllib.request.urlopen(url) as response:
        assert response.read() == s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def test_a_trial_keeps_its_score_when_the_bucket_is_gone(
    s3: Any, bucket: str, merge_study: MergeStudy
) -> None:
    s3.delete_bucket(Bucket=bucket)
    said: list[str] = []
    run_trials(merge_study, 2, say=said.append)
    assert [t.values is not None for t in merge_study.trials()] == [True, True]
    lost = [line for line in said if "its answers" in line]
    assert lost[0] == (
        f"trial 0 keeps its score, not its answers: artifacts in s3://{bucket}: there is no such "
        "bucket; create it, or correct EVOMERGE_ARTIFACTS"
    )
    with pytest.raises(StorageError, match="there is no such bucket"):
        merge_study.store.artifacts.attach(merge_study.study, "note", "text", "text/plain")


def test_no_such_bucket(
    s3: Any, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_ARTIFACTS", "s3://no-such-bucket")
    out, err = command_line.run("study", "list", code=1)
    assert (out, err) == (
        "",
        "Error: artifacts in s3://no-such-bucket: there is no such bucket; create it, or correct "
        "EVOMERGE_ARTIFACTS\n",
    )


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("AWS_ENDPOINT_URL", "http://me:secret@127.0.0.1:1", "no answer .* AWS_ENDPOINT_URL right"),
        ("AWS_ENDPOINT_URL", "me:secret", "AWS_ENDPOINT_URL is no URL; write http://"),
        ("AWS_SECRET_ACCESS_KEY", "", "no credentials; set AWS_ACCESS_KEY_ID and"),
        ("AWS_PROFILE", "nobody", r"profile \(nobody\) could not be found"),
    ],
)
def test_an_s3_that_cannot_be_used(
    s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    if not value:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(StorageError, match=message) as error:
        open_store()
    assert f"s3://{bucket}: " in str(error.value)
    assert "secret" not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("s3://bucket/prefix", "a folder within a bucket cannot be named; write s3://BUCKET"),
        ("s3://", "no name of a bucket"),
        ("s3://me:secret@bucket", "no name of a bucket"),
        ("gs://secret", "neither a folder nor s3://BUCKET"),
        ("s3:/key:secret@bucket", "neither a folder nor s3://BUCKET"),
        ("S3://key:secret@bucket", "neither a folder nor s3://BUCKET"),
    ],
)
def test_what_is_no_artifact_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str, message: str
) -> None:
    monkeypatch.setenv("EVOMERGE_ARTIFACTS", place)
    with pytest.raises(UsageError, match=message) as error:
        open_artifacts(tmp_path)
    assert "secret" not in str(error.value)


def test_s3_without_boto3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)  # what import sees where it is not installed
    monkeypatch.setenv("EVOMERGE_ARTIFACTS", "s3://bucket")
    with pytest.raises(StorageError, match=r"pip install 'evomerge-optuna\[s3\]'"):
        open_artifacts(tmp_path)


def test_a_folder_of_artifacts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EVOMERGE_ARTIFACTS", str(tmp_path / "a" / "b"))
    assert str(open_artifacts(tmp_path)) == str(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    monkeypatch.setenv("EVOMERGE_ARTIFACTS", str(tmp_path / "file"))
    with pytest.raises(StorageError, match=f"artifacts in {tmp_path}/file: File exists"):
        open_artifacts(tmp_path)
