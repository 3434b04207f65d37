"""Users and grants that are remembered: for how long, for whom, and what ends it."""

# Most of MLflow's functions have no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from longrun_server.accounts import Accounts
from mlflow.exceptions import MlflowException
from mlflow.server.auth import sqlalchemy_store
from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME as HERE
from sqlalchemy import event
from werkzeug.security import check_password_hash

PASSWORD = "a long password 1"  # noqa: S105 - of nobody
SECONDS = 30


class Clock:
    """A clock that stands still until somebody moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An auth database with its tables."""
    where = f"sqlite:///{tmp_path_factory.mktemp('auth') / 'auth.db'}"
    SqlAlchemyStore().init_db(where)
    return where


class Server:
    """An instance, another one behind its back, and what it has asked the database.

    Attributes:
        accounts: The instance's.
        behind: The other one's store.
        clock: What the instance takes for the time.
        asked: Statements of the instance that read.
    """

    def __init__(self, address: str) -> None:
        self.clock = Clock()
        self.accounts = Accounts(SECONDS, 100, self.clock)
        self.accounts.init_db(address)
        self.behind = SqlAlchemyStore()
        self.behind.init_db(address)
        self.asked: list[str] = []
        event.listen(self.accounts.engine, "before_cursor_execute", self._note)
        self._flask = Flask("test")

    def _note(self, *told: object) -> None:
        statement = str(told[2])
        if statement.startswith("SELECT"):
            self.asked.append(statement)

    def may(self, username: str, permission: str = "READ") -> bool:
        """Return, in a request of its own, whether a user has this permission on experiment 1."""

        def ask() -> bool:
            grants = self.accounts.list_grants(self.accounts.get_user(username).id, HERE, {"experiment"})
            return ("experiment", "1", permission) in grants

        return self.request(lambda: self.accounts.believe(ask, bool))

    def is_admin(self, username: str) -> bool:
        """Return, in a request of its own, whether a user is an administrator."""
        return self.request(lambda: self.accounts.believe(lambda: bool(self.accounts.get_user(username).is_admin), bool))

    def request(self, ask: Callable[[], bool]) -> bool:
        """Return an answer within a request."""
        with self._flask.test_request_context():
            return ask()


@pytest.fixture
def server(address: str) -> Iterator[Server]:
    """An instance with the user ann, who has nothing."""
    made = Server(address)
    made.accounts.create_user("ann", PASSWORD)
    yield made
    for user in made.behind.list_users():
        made.behind.delete_user(user.username)
    for store in (made.accounts, made.behind):
        store.engine.dispose()


def test_a_yes_is_remembered(server: Server) -> None:
    """One statement for the first request, none for the next ones, one again after the time."""
    server.accounts.grant_user_permission("ann", "experiment", "1", "READ")
    server.asked.clear()
    assert [server.may("ann") for _ in range(5)] == [True] * 5
    assert len(server.asked) == 1
    server.clock.now += SECONDS - 1
    assert server.may("ann")
    assert len(server.asked) == 1
    server.clock.now += 1
    assert server.may("ann")
    assert len(server.asked) == 2


def test_a_no_is_not(server: Server) -> None:
    """What another instance grants holds for the next request."""
    assert not server.may("ann")
    server.behind.grant_user_permission("ann", "experiment", "1", "READ")
    assert server.may("ann")


def test_a_right_that_another_instance_takes_away_ends_in_time(server: Server) -> None:
    """And not later: by a revocation, and by a denial beside it."""
    server.accounts.grant_user_permission("ann", "experiment", "1", "READ")
    assert server.may("ann")
    server.behind.revoke_user_resource_permission("ann", "experiment", "1")
    server.clock.now += SECONDS
    assert not server.may("ann")


def test_an_administrator_comes_and_goes(server: Server) -> None:
    """At once where it was done here, or where it gives; in time where another instance takes it away."""
    assert not server.is_admin("ann")
    server.behind.update_user("ann", is_admin=True)
    assert server.is_admin("ann")
    server.behind.update_user("ann", is_admin=False)
    server.clock.now += SECONDS
    assert not server.is_admin("ann")
    server.accounts.update_user("ann", is_admin=True)
    assert server.is_admin("ann")
    server.accounts.update_user("ann", is_admin=False)
    assert not server.is_admin("ann")


def _role(server: Server) -> tuple[int, int, int]:
    role = server.behind.create_role(name="readers", workspace=HERE)
    user = server.behind.get_user("ann").id
    server.behind.assign_role_to_user(user, role.id)
    return user, role.id, server.behind.add_role_permission(role.id, "experiment", "1", "READ").id


@pytest.mark.parametrize("end", ["unassign", "remove", "update", "delete"])
def test_a_role_ends_at_once_here(server: Server, end: str) -> None:
    """Whatever it is that is written, it is forgotten."""
    user, role, grant = _role(server)
    assert server.may("ann")
    {
        "unassign": lambda: server.accounts.unassign_role_from_user(user, role),
        "remove": lambda: server.accounts.remove_role_permission(grant),
        "update": lambda: server.accounts.update_role_permission(grant, "DENY"),
        "delete": lambda: server.accounts.delete_role(role),
    }[end]()
    assert not server.may("ann")
    if end != "delete":
        server.accounts.delete_role(role)


def test_a_revocation_here_holds_at_once(server: Server) -> None:
    """Of a user's own grant."""
    server.accounts.grant_user_permission("ann", "experiment", "1", "READ")
    assert server.may("ann")
    server.accounts.revoke_user_resource_permission("ann", "experiment", "1")
    assert not server.may("ann")


def test_a_user_who_is_gone_is_unknown(server: Server) -> None:
    """Deleted here at once, deleted elsewhere in time, with MLflow's own words."""
    server.accounts.grant_user_permission("ann", "experiment", "1", "READ")
    assert server.may("ann")
    server.accounts.delete_user("ann")
    with pytest.raises(MlflowException, match="User with username=ann not found"):
        server.may("ann")
    server.accounts.create_user("ann", PASSWORD)
    server.accounts.grant_user_permission("ann", "experiment", "1", "READ")
    assert server.may("ann")
    server.behind.delete_user("ann")
    server.clock.now += SECONDS
    with pytest.raises(MlflowException, match="User with username=ann not found"):
        server.may("ann")


def test_a_name_that_is_used_again_is_another_user(server: Server) -> None:
    """Who comes with a password that was not seen yet gets nothing of the former one's, though another instance has made them."""
    server.accounts.grant_user_permission("ann", "experiment", "1", "READ")
    assert server.may("ann")
    server.behind.delete_user("ann")
    server.behind.create_user("ann", "another password 2")
    assert server.accounts.authenticate_user("ann", "another password 2")
    assert not server.may("ann")


def test_one_request_sees_one_state(server: Server) -> None:
    """Even where nothing is remembered from others; until it writes itself."""
    server.accounts.grant_user_permission("ann", "experiment", "1", "READ")
    server.asked.clear()

    def ask() -> bool:
        user = server.accounts.get_user("ann").id
        first = server.accounts.list_grants(user, HERE, {"experiment"})
        server.behind.revoke_user_resource_permission("ann", "experiment", "1")
        assert server.accounts.get_user("ann").id == user
        assert server.accounts.list_grants(user, HERE, {"experiment"}) == first != []
        server.accounts.grant_user_permission("ann", "run", "*", "DENY")
        server.accounts.get_user("ann")
        return server.accounts.list_grants(user, HERE, {"experiment", "run"}) == [("run", "*", "DENY")]

    assert server.request(ask)


def test_who_does_not_ask_for_a_yes_gets_nothing_old(server: Server) -> None:
    """A handler that lists users or filters an answer reads for itself, in the same request too."""
    server.accounts.grant_user_permission("ann", "experiment", "1", "READ")
    assert server.may("ann")
    server.behind.revoke_user_resource_permission("ann", "experiment", "1")

    def ask() -> bool:
        believed = server.accounts.believe(lambda: bool(server.accounts.list_grants(server.accounts.get_user("ann").id, HERE, {"experiment"})), bool)
        return believed and not server.accounts.list_grants(server.accounts.get_user("ann").id, HERE, {"experiment"})

    assert server.request(ask)


def test_what_is_read_while_something_is_written_is_not_remembered(server: Server) -> None:
    """It may be what was before."""
    server.accounts.grant_user_permission("ann", "experiment", "1", "READ")
    read = server.accounts.ManagedSessionMaker
    once = [True]

    def slow(read_only: bool = True) -> object:  # noqa: FBT001, FBT002 - as MLflow calls it
        if once:
            once.clear()
            server.accounts.forget()
        return read(read_only=read_only)

    server.accounts.ManagedSessionMaker = slow
    assert server.may("ann")
    server.asked.clear()
    assert server.may("ann")
    assert len(server.asked) == 1


def test_grants_are_mlflows(server: Server) -> None:
    """For every set of types, those on the whole workspace included, and none of another workspace or user."""
    server.accounts.create_user("ben", PASSWORD)
    for name, kind, pattern, permission in (
        ("ann", "experiment", "1", "EDIT"),
        ("ann", "run", "*", "DENY"),
        ("ann", "workspace", "*", "USE"),
        ("ben", "experiment", "*", "MANAGE"),
    ):
        server.accounts.grant_user_permission(name, kind, pattern, permission)
    elsewhere = server.accounts.create_role(name="elsewhere", workspace="elsewhere")
    server.accounts.add_role_permission(elsewhere.id, "experiment", "*", "MANAGE")
    server.accounts.assign_role_to_user(server.accounts.get_user("ann").id, elsewhere.id)

    def ask() -> bool:
        for name in ("ann", "ben"):
            user = server.accounts.get_user(name)
            stock = server.behind.get_user(name)
            assert vars(user) == vars(stock)
            for types in (set[str](), {"experiment"}, {"run", "logged_model"}, {"experiment", "run", "workspace"}):
                for workspace in (HERE, "elsewhere", "nowhere"):
                    assert sorted(server.accounts.list_grants(user.id, workspace, types)) == sorted(server.behind.list_grants(user.id, workspace, types))
        with pytest.raises(MlflowException, match="Invalid resource type"):
            server.accounts.list_grants(user.id, HERE, {"nonsense"})
        return True

    assert server.request(ask)
    server.accounts.delete_role(elsewhere.id)


def test_nothing_is_remembered_where_it_is_switched_off(address: str) -> None:
    """Zero seconds; and never longer than a minute, whatever is configured."""
    off, long = Accounts(0, 10), Accounts(3600, 10)
    off.init_db(address)
    off.create_user("cid", PASSWORD)
    try:
        off.get_user("cid")
        assert len(off._remembered) == 0
        assert long._remembered.ttl == 60
    finally:
        off.delete_user("cid")
        off.engine.dispose()


def test_threads(server: Server) -> None:
    """While one grants and revokes, others ask: what holds after each change is what the next request sees."""
    wrong: list[str] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                server.may("ann")
            except MlflowException as error:
                wrong.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            server.accounts.grant_user_permission("ann", "experiment", "1", "READ")
            assert server.may("ann")
            server.accounts.revoke_user_resource_permission("ann", "experiment", "1")
            assert not server.may("ann")
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], threading.Event]:
    """Passwords that are being compared, and what lets the comparisons end."""
    compared: list[str] = []
    end = threading.Event()

    def check(password_hash: str, password: str) -> bool:
        compared.append(password)
        assert end.wait(30)
        return check_password_hash(password_hash, password)

    monkeypatch.setattr(sqlalchemy_store, "check_password_hash", check)
    return compared, end


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("password", [PASSWORD, "not the password"])
def test_the_same_password_is_compared_once_at_a_time(server: Server, slowly: tuple[list[str], threading.Event], password: str) -> None:
    """When what is remembered ends, all requests of a busy user come at once, and each comparison takes a processor for a tenth of a second."""
    server.behind.create_user("busy", PASSWORD)
    compared, end = slowly
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(server.accounts.authenticate_user, "busy", password) for _ in range(8)]
        _until(lambda: bool(compared) and len(server.accounts._checking["busy", password]._condition._waiters) == 7)  # type: ignore[attr-defined]
        end.set()
        assert [each.result() for each in answers] == [password == PASSWORD] * 8
    assert compared == [password]
    assert not server.accounts._checking
    # And again, when nobody is at it.
    assert server.accounts.authenticate_user("busy", password) == (password == PASSWORD)
    assert len(compared) == 2


def test_a_comparison_from_before_a_change_answers_nobody_after_it(server: Server, slowly: tuple[list[str], threading.Event]) -> None:
    """A password that was changed here is refused at once."""
    server.behind.create_user("changes", PASSWORD)
    compared, end = slowly
    with ThreadPoolExecutor(2) as threads:
        before = threads.submit(server.accounts.authenticate_user, "changes", PASSWORD)
        _until(lambda: bool(compared))
        server.accounts.update_user("changes", password="another password 2")  # noqa: S106 - of nobody
        after = threads.submit(server.accounts.authenticate_user, "changes", PASSWORD)
        _until(lambda: len(compared) == 2)
        end.set()
        assert before.result()
        assert not after.result()


def test_a_comparison_that_breaks_is_begun_anew(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for one that is over."""
    server.behind.create_user("breaks", PASSWORD)
    with monkeypatch.context() as patch:
        patch.setattr(sqlalchemy_store, "check_password_hash", lambda *_: 1 / 0)
        with pytest.raises(MlflowException, match="division"):
            server.accounts.authenticate_user("breaks", PASSWORD)
    assert server.accounts.authenticate_user("breaks", PASSWORD)
