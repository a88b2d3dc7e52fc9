"""What the small Hub of `hub_server` stores: repositories with commits, branches and tags, in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Blob:
    """One file of a commit; `oid` is what the real Hub compares: the sha256 of LFS files, git's sha1 of others."""

    data: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        if self.lfs:
            return hashlib.sha256(self.data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()


@dataclass(frozen=True)
class Commit:
    oid: str
    title: str
    files: dict[str, Blob]
    parent: Commit | None = None


@dataclass
class Repo:
    """A repository: commits by oid, and branches and tags that point to them."""

    id: str
    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, title: str, files: dict[str, Blob], branch: str = "main") -> Commit:
        oid = hashlib.sha1(f"{self.id}/{branch}/{len(self.commits)}/{title}".encode()).hexdigest()
        parent = self.commits.get(self.branches.get(branch, ""))
        self.commits[oid] = Commit(oid, title, files, parent)
        self.branches[branch] = oid
        return self.commits[oid]

    def at(self, revision: str) -> Commit | None:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        return self.commits.get(oid)

    @property
    def history(self) -> list[Commit]:
        """Commits of the main branch, newest first."""
        commits, commit = [], self.at("main")
        while commit is not None:
            commits.append(commit)
            commit = commit.parent
        return commits

    @property
    def files(self) -> dict[str, Blob]:
        """Files at the head of the main branch."""
        return self.commits[self.branches["main"]].files
