"""Who a user is and what was granted, asked for once: one statement in the place of three to five, and mostly none.

MLflow asks its auth database for the user and for the grants at every step of a request. Here both are read together, as an account, and remembered:

- For the rest of the request, always. Nothing in a request may see two states of the same user.
- For the requests after it, `seconds` at most, and only for a decision that comes out as "yes" (`believe`). A "no" is asked again of the database, so what
  another instance has granted holds at once. What another instance has taken away ends within `seconds`, as a password that it has changed does.

Whatever is written through this store, any user, role or permission, makes it forget all accounts before the writer gets its answer.
"""

# Most of MLflow's functions have no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cachetools import TTLCache
from flask import g, has_request_context
from mlflow.server.auth.db.models import SqlRole, SqlRolePermission, SqlUser, SqlUserRoleAssignment
from mlflow.server.auth.entities import User
from mlflow.server.auth.permissions import RESOURCE_TYPE_WORKSPACE, _validate_resource_type
from mlflow.server.auth.sqlalchemy_store import RoleGrantRow, SqlAlchemyStore
from sqlalchemy import Select, select

# A password that was changed lives on for as long as this at most (MLflow's auth cache): so may a permission, and no longer.
LONGEST_SECONDS = 60
_READING = "_longrun_reading"

_Answer = TypeVar("_Answer")

# One row a grant; a user without any has one row all the same.
_ACCOUNT: Select[*tuple[Any, ...]] = (
    select(
        SqlUser.id,
        SqlUser.username,
        SqlUser.password_hash,
        SqlUser.is_admin,
        SqlRole.workspace,
        SqlRolePermission.resource_type,
        SqlRolePermission.resource_pattern,
        SqlRolePermission.permission,
    )
    .outerjoin(SqlUserRoleAssignment, SqlUserRoleAssignment.user_id == SqlUser.id)
    .outerjoin(SqlRole, SqlRole.id == SqlUserRoleAssignment.role_id)
    .outerjoin(SqlRolePermission, SqlRolePermission.role_id == SqlRole.id)
)


@dataclass(frozen=True)
class Account:
    """A user and everything that was granted to them.

    Attributes:
        id: The user's in the auth database; another one where a name is used again.
        username: As it is written there.
        password_hash: As MLflow stores it.
        is_admin: Whether they may do everything.
        grants: By workspace.
    """

    id: int
    username: str
    password_hash: str
    is_admin: bool
    grants: dict[str, list[RoleGrantRow]]

    def user(self) -> User:
        """Return what MLflow makes of it; a new one, for MLflow's can be written to."""
        return User(id_=self.id, username=self.username, password_hash=self.password_hash, is_admin=self.is_admin)


@dataclass
class Reading:
    """What one request has read.

    Attributes:
        generation: Of the accounts; what was read in an older one is read again.
        known: By user name.
        trusting: Whether accounts of earlier requests may answer.
        relied: Whether one of them has.
    """

    generation: int
    known: dict[str, Account] = field(default_factory=dict)
    trusting: bool = False
    relied: bool = False


class Accounts(SqlAlchemyStore):
    """MLflow's auth store with a memory.

    Args:
        seconds: How long an account answers later requests; 0 for never.
        size: How many accounts are remembered at most.
        clock: Seconds, of any start.
    """

    def __init__(self, seconds: float, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._remembers = seconds > 0
        self._remembered: TTLCache[str, Account] = TTLCache(max(size, 1), min(seconds, LONGEST_SECONDS), timer=clock)
        self._lock = threading.Lock()
        self._generation = 0
        # Names and passwords that are being compared right now.
        self._checking: dict[tuple[str, str], Future[bool]] = {}

    def init_db(self, db_uri: str, read_db_uri: str | None = None) -> None:
        """Open the database, and forget all accounts after whatever writes to it."""
        super().init_db(db_uri, read_db_uri)
        # A replica lags behind: what is read there right after a write may be old, and would be remembered.
        self._remembers = self._remembers and self.read_engine is None
        make = self.ManagedSessionMaker

        @contextmanager
        def writing() -> Iterator[Any]:
            try:
                with make(read_only=False) as session:
                    yield session
            finally:
                self.forget()

        # The one door to the database that every method of MLflow's store goes through.
        def sessions(read_only: bool = True) -> AbstractContextManager[Any]:  # noqa: FBT001, FBT002 - as MLflow calls it
            return make(read_only=True) if read_only else writing()

        self.ManagedSessionMaker = sessions

    def forget(self) -> None:
        """Forget all accounts, those that are being read right now included."""
        with self._lock:
            self._generation += 1
            self._remembered.clear()
            self._checking.clear()

    def believe(self, ask: Callable[[], _Answer], is_yes: Callable[[_Answer], bool]) -> _Answer:
        """Return the answer to a question of permission, from remembered accounts where that is a yes.

        Args:
            ask: The question; asked a second time, without memory, where the first answer came from it and is not a yes.
            is_yes: Whether nothing is withheld.
        """
        reading = self._reading()
        if reading is None or reading.trusting:
            return ask()
        reading.trusting, reading.relied = True, False
        try:
            answer = ask()
        finally:
            reading.trusting = False
            if reading.relied:
                # The rest of the request reads for itself.
                reading.known.clear()
        return ask() if reading.relied and not is_yes(answer) else answer

    def authenticate_user(self, username: str, password: str, *, use_primary: bool = False) -> bool:
        """Return whether this is the user's password, which only the database knows.

        The name may be another user's by now, whose password this is: what is remembered of the former one ends here.

        A comparison takes a processor for a tenth of a second. When the password that many requests come with is asked for again, all of them ask at once:
        one compares, and the others wait for its answer.
        """
        with self._lock:
            started = self._checking.get((username, password))
            if started is None:
                check = self._checking[username, password] = Future[bool]()
                self._generation += 1
                self._remembered.pop(username, None)
        if started is not None:
            return started.result()
        try:
            is_right = bool(super().authenticate_user(username, password, use_primary=use_primary))
        except BaseException as error:
            check.set_exception(error)
            raise
        else:
            check.set_result(is_right)
            return is_right
        finally:
            with self._lock:
                if self._checking.get((username, password)) is check:
                    del self._checking[username, password]

    def get_user(self, username: str) -> User:
        """Return the user, as MLflow's store does."""
        account = self._account(username)
        # Without a row it is MLflow that says so.
        return super().get_user(username) if account is None else account.user()

    def list_grants(self, user_id: int, workspace: str, resource_types: Collection[str]) -> list[RoleGrantRow]:
        """Return the grants of these types in a workspace and those on the whole of it, as MLflow's store does."""
        types = set(resource_types)
        for resource_type in types:
            _validate_resource_type(resource_type)
        reading = self._reading()
        account = None if reading is None else next((each for each in reading.known.values() if each.id == user_id), None)
        if account is None:
            return list(super().list_grants(user_id, workspace, types))
        types.add(RESOURCE_TYPE_WORKSPACE)
        return [grant for grant in account.grants.get(workspace, []) if grant.resource_type in types]

    def _reading(self) -> Reading | None:
        """Return what the request at hand has read; None outside of one."""
        if not has_request_context():
            return None
        reading: Reading | None = g.get(_READING)
        if reading is None:
            reading = Reading(self._generation)
            setattr(g, _READING, reading)
        elif reading.generation != self._generation:
            reading.generation = self._generation
            reading.known.clear()
        return reading

    def _account(self, username: str) -> Account | None:
        reading = self._reading()
        if reading is None:
            return self._read(username)
        account = reading.known.get(username)
        if account is None and reading.trusting:
            with self._lock:
                account = self._remembered.get(username)
            reading.relied = reading.relied or account is not None
        if account is None:
            account = self._read(username)
        if account is not None:
            reading.known[username] = account
        return account

    def _read(self, username: str) -> Account | None:
        generation = self._generation
        with self.ManagedSessionMaker() as session:
            rows = session.execute(_ACCOUNT.where(SqlUser.username == username)).all()
        # The column is unique; another spelling of the name is what a database may compare as the same, and MLflow's business.
        if not rows or any(row.username != username for row in rows):
            return None
        grants: dict[str, list[RoleGrantRow]] = {}
        for row in rows:
            if row.permission is not None:
                grants.setdefault(row.workspace, []).append(RoleGrantRow(row.resource_type, row.resource_pattern, row.permission))
        account = Account(rows[0].id, rows[0].username, rows[0].password_hash, rows[0].is_admin, grants)
        with self._lock:
            # Something was written meanwhile: this may be what was before it.
            if self._remembers and generation == self._generation:
                self._remembered[username] = account
        return account
