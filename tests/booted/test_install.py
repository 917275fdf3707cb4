"""`make install` and `make uninstall`, into a folder that stands for a machine."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make(target: str, folder: Path) -> None:
    order = ["make", "--silent", target, "PREFIX=/opt/x", f"DESTDIR={folder}"]
    subprocess.run(order, cwd=ROOT, check=True, capture_output=True, text=True)


def files(folder: Path) -> set[str]:
    return {f"/{path.relative_to(folder)}" for path in folder.rglob("*") if not path.is_dir()}


def test_what_is_installed_works_and_goes_again(tmp_path: Path) -> None:
    make("install", tmp_path)
    there = files(tmp_path)
    assert {
        "/opt/x/bin/prosody-sidecar",
        "/usr/local/lib/systemd/system/prosody-sidecar.service",
        "/usr/local/lib/systemd/system/prosody-sidecar.socket",
        "/etc/prosody-sidecar/sidecar.yaml",
        "/usr/share/jitsi-meet/prosody-plugins/mod_muc_webhook.lua",
    } <= there
    examples = "/opt/x/share/doc/prosody-sidecar/examples/sidecar.yaml"
    assert examples in there
    assert f"see {examples}." in (tmp_path / "etc/prosody-sidecar/sidecar.yaml").read_text()
    unit = (tmp_path / "usr/local/lib/systemd/system/prosody-sidecar.service").read_text()
    assert "ExecStart=/opt/x/bin/prosody-sidecar run\n" in unit
    assert (tmp_path / "opt/x/bin/prosody-sidecar").read_text().startswith("#!/opt/x/lib/prosody-sidecar/bin/python3\n")
    python = tmp_path / "opt/x/lib/prosody-sidecar/bin/python3"
    done = subprocess.run([python, "-m", "sidecar", "--version"], cwd="/", check=True, capture_output=True, text=True)
    assert "version" in done.stdout

    (tmp_path / "etc/prosody-sidecar/sidecar.yaml").write_text("mine")
    make("install", tmp_path)
    make("uninstall", tmp_path)
    assert files(tmp_path) == {"/etc/prosody-sidecar/sidecar.yaml"}
    assert (tmp_path / "etc/prosody-sidecar/sidecar.yaml").read_text() == "mine"
