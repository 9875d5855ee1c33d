"""Fetch a published data set: only what is asked for, sizes told beforehand, interruptions survived, bytes verified."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from brainlit.files import waiting_lock
from brainlit.hints import few
from brainlit.stories.base import Remote
from brainlit.stories.download.hosts import DownloadError, Host, UnreachableError, open_host
from brainlit.stories.download.plan import (
    MAX_NAMED,
    DownloadPlan,
    gigabytes,
    make_plan,
    missing_locally,
    plan_text,
    plan_without_network,
    require_room,
)
from brainlit.stories.download.transfer import OnDifference, Transfer
from brainlit.stories.download.verify import Ledger, pointer_problem

__all__ = [
    "DownloadError",
    "DownloadPlan",
    "DownloadReport",
    "OnDifference",
    "download",
    "missing_locally",
    "plan_text",
    "pointer_problem",
]

logger = logging.getLogger(__name__)

LOCK_FILE = ".brainlit-download.lock"


@dataclass(frozen=True)
class DownloadReport:
    """What a download did.

    Parameters
    ----------
    plan : DownloadPlan
        What was there before.
    fetched : mapping of path to int
        Bytes that came over the network.
    checked : mapping of str to int
        Files by what agrees with the published ones: 'MD5', 'MD5 of parts', 'SHA256', ..., 'size only'.
    size_only : tuple of str
        Files of which the service tells nothing but the size.
    kept : tuple of str
        Local files that differ from the published ones and were kept, as asked.
    """

    plan: DownloadPlan
    dry_run: bool = False
    fetched: Mapping[str, int] = field(default_factory=dict)
    checked: Mapping[str, int] = field(default_factory=dict)
    size_only: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def text(self) -> str:
        """The report in a few lines; of a dry run, the plan."""
        if self.dry_run:
            return f"{plan_text(self.plan)}\nNothing was fetched (dry run)."
        remote = self.plan.remote
        agree = ", ".join(f"{n} by {what}" for what, n in sorted(self.checked.items()))
        lines = [
            f"{len(self.plan.files)} files ({gigabytes(self.plan.n_bytes)}) of {remote.url} are in {remote.root};"
            f" {gigabytes(sum(self.fetched.values()))} were fetched now. Verified: {agree or 'none'}.",
        ]
        if self.size_only:
            lines.append(f"The service tells only the size of {len(self.size_only)}: {few(self.size_only, MAX_NAMED)}")
        if self.kept:
            lines.append(f"Kept although they differ from the published files: {few(self.kept, MAX_NAMED)}")
        return "\n".join([*lines, f"Licence: {remote.licence}"])


def download(
    remote: Remote,
    dry_run: bool = False,
    progress: bool = True,
    endpoint_url: str | None = None,
    on_difference: OnDifference = "refuse",
) -> DownloadReport:
    """Fetch the files that a source asks for into its folder.

    Files that were fetched and verified before are not fetched or read again (`<root>/.brainlit-download.json` says
    which), and if that is all, the network is not touched. Bytes are collected in `<name>.part` and get their name
    when they agree with what is published, so an interruption at any moment loses nothing and leaves nothing half.

    Parameters
    ----------
    remote : Remote
        What `source.remote()` returns.
    dry_run : bool
        Only say what would be done.
    progress : bool
        Show a progress bar.
    endpoint_url : str or None
        Another S3 service than Amazon's; None takes AWS_ENDPOINT_URL_S3 of the environment, else Amazon.
    on_difference : 'refuse', 'keep' or 'replace'
        What becomes of local files that differ from the published ones and are not from an earlier download.

    Raises
    ------
    DownloadError
        Before anything is fetched: if files are not published, the disk has too little room or the server cannot be
        reached. At the end: if files could not be fetched; its `failures` name all, and the others are there.
    """
    ledger = Ledger(remote.root, remote.url)
    done = plan_without_network(remote, ledger)
    if done is not None:
        return DownloadReport(done, dry_run, checked={"an earlier download": len(done.files)})
    host = open_host(remote.url, endpoint_url)
    if dry_run:
        return DownloadReport(_planned(remote, host, ledger), dry_run)
    remote.root.mkdir(parents=True, exist_ok=True)
    with waiting_lock(remote.root / LOCK_FILE, f"another process downloads into {remote.root}"):
        ledger = Ledger(remote.root, remote.url)  # as the one who had the lock before left it
        plan = _planned(remote, host, ledger)
        require_room(plan)
        logger.info("%s", plan_text(plan))
        transfer = Transfer(plan, host, ledger, on_difference, progress)
        transfer.run()
        if transfer.failures:
            raise DownloadError(_failure_text(transfer), transfer.failures)
        ledger.remember(plan.patterns)
        ledger.save()
    size_only, kept = tuple(transfer.size_only), tuple(transfer.kept)
    return DownloadReport(plan, dry_run, transfer.fetched, transfer.checked, size_only, kept)


def _planned(remote: Remote, host: Host, ledger: Ledger) -> DownloadPlan:
    logger.info("asking %s for the sizes of %d files", remote.url, len(remote.paths))
    try:
        return make_plan(remote, host, ledger)
    except UnreachableError as error:
        raise DownloadError(f"{error} Nothing was fetched. {_what_to_do(remote)}") from error


def _failure_text(transfer: Transfer) -> str:
    plan, failures = transfer.plan, list(transfer.failures.items())
    n_there = len(plan.files) - len(failures) - len(transfer.untried)
    lines = [f"{len(failures)} of {len(plan.files)} files could not be fetched, {n_there} are in {plan.remote.root}:"]
    lines += [f"  {path}: {reason}" for path, reason in failures[:MAX_NAMED]]
    if len(failures) > MAX_NAMED:
        lines.append(f"  and {len(failures) - MAX_NAMED} more")
    if transfer.untried:
        lines.append(f"{len(transfer.untried)} others were not tried after that.")
    return "\n".join([*lines, _what_to_do(plan.remote)])


def _what_to_do(remote: Remote) -> str:
    by_hand = f"aws s3 cp --no-sign-request {remote.url}/PATH" if remote.url.startswith("s3://") else remote.url
    return (
        "Check the network (and HTTPS_PROXY, if there is a proxy) and run the same command again: it goes on where it"
        f" stopped. Or fetch the files by hand ({by_hand}) into {remote.root}, with the same folders."
    )
