"""Drive the Firefox that this machine has, as a reader would: pages, keys, mouse and console.

Playwright drives only a Firefox of its own making. This speaks WebDriver BiDi, the W3C's protocol
(https://w3c.github.io/webdriver-bidi/), which each Firefox answers on the port that it is told.
Commands are JSON over a WebSocket, each with a number that its answer repeats; what happens
meanwhile comes as events between the answers.
"""

import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import websocket

EXECUTABLE = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)

PATIENCE = 300
"""Seconds for any one step: it catches a hang, not a slow machine."""

# Beside what Firefox sets by itself for whoever drives it: nothing fetched, kept or asked.
PREFERENCES = {
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.safebrowsing.downloads.remote.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "browser.tabs.remote.warmup.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.server": "",
}

KEYS = {
    "Shift": "\ue008", "Tab": "\ue004", "Enter": "\ue007", "Home": "\ue011", "End": "\ue010",
    "PageUp": "\ue00e", "PageDown": "\ue00f", "Delete": "\ue017", "ArrowLeft": "\ue012",
    "ArrowUp": "\ue013", "ArrowRight": "\ue014", "ArrowDown": "\ue015", "Control": "\ue009",
}  # fmt: skip
"""What WebDriver calls the keys that write nothing."""

HERE = ("file:", "data:", "blob:", "about:")


class Firefox(contextlib.AbstractContextManager):
    """A Firefox without a window, with a fresh profile that goes when it does.

    Args:
        preferences: of `about:config`, beside those that keep it quiet.

    Raises:
        RuntimeError: there is none, it did not start, or it answered a command with an error.
    """

    def __init__(self, preferences=None):
        if EXECUTABLE is None:
            raise RuntimeError("no Firefox on this machine")
        self._numbers = itertools.count(1)
        self._events = []
        with contextlib.ExitStack() as stack:
            profile = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="firefox-", ignore_cleanup_errors=True)
            )
            lines = [
                f"user_pref({json.dumps(name)}, {json.dumps(value)});"
                for name, value in {**PREFERENCES, **(preferences or {})}.items()
            ]
            Path(profile, "user.js").write_text("\n".join(lines), encoding="utf-8")
            log = stack.enter_context(Path(profile, "log").open("w+", encoding="utf-8"))
            command = [EXECUTABLE, "--headless", "--no-remote", "--profile", profile]
            command += ["--remote-debugging-port", "0", "about:blank"]
            process = subprocess.Popen(command, stdout=log, stderr=log)
            stack.callback(self._end, process)
            self._socket = stack.enter_context(
                contextlib.closing(self._connect(process, Path(profile), log))
            )
            self.version = self.command("session.new", capabilities={})["capabilities"][
                "browserVersion"
            ]
            events = ["log.entryAdded", "network.beforeRequestSent"]
            self.command("session.subscribe", events=events)
            self._stack = stack.pop_all()

    @staticmethod
    def _connect(process, profile, log):
        """The socket, as soon as Firefox has written down its port."""
        told = profile / "WebDriverBiDiServer.json"
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and process.poll() is None:
            # Until it is written whole, it is no JSON.
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, ConnectionError):
                port = json.loads(told.read_text(encoding="utf-8"))["ws_port"]
                # Firefox lets nobody in who says which page they come from.
                return websocket.create_connection(
                    f"ws://127.0.0.1:{port}/session", timeout=PATIENCE, suppress_origin=True
                )
            time.sleep(0.05)
        log.seek(0)
        raise RuntimeError(f"Firefox did not start: {log.read()}")

    def _end(self, process):
        process.terminate()
        try:
            process.wait(PATIENCE / 10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __exit__(self, *_):
        with contextlib.suppress(RuntimeError, websocket.WebSocketException, OSError):
            self.command("session.end")
        self._stack.close()

    def command(self, method, **params):
        """Send one command and return its result; keep the events that come before it."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == number:
                break
            self._events.append(answer)
        if answer["type"] == "error":
            raise RuntimeError(f"{method}: {answer['error']}: {answer['message']}")
        return answer["result"]

    def open(self, url, width=1000, height=900, ratio=1):
        """Open a page in a tab of its own, this wide and high in CSS pixels, and wait until it is
        loaded."""
        context = self.command("browsingContext.create", type="tab")["context"]
        self.command(
            "browsingContext.setViewport",
            context=context,
            viewport={"width": width, "height": height},
            devicePixelRatio=ratio,
        )
        tab = Tab(self, context)
        tab.goto(url)
        return tab

    def events(self, context):
        """What was said and asked in one tab, in the order in which it was told."""
        for event in self._events:
            params = event.get("params", {})
            if context in (params.get("context"), params.get("source", {}).get("context")):
                yield event["method"], params


class Tab:
    """A page in Firefox."""

    def __init__(self, firefox, context):
        self._firefox, self.context = firefox, context

    def goto(self, url):
        """Go to another page in this tab, and wait until it is loaded."""
        self._command("browsingContext.navigate", url=url, wait="complete")

    def _command(self, method, **params):
        return self._firefox.command(method, context=self.context, **params)

    def evaluate(self, function, *arguments):
        """Call a function of JavaScript, `async` or not, with JSON, and return its JSON."""
        result = self._firefox.command(
            "script.callFunction",
            functionDeclaration=f"""async (given) =>
              JSON.stringify(await ({function})(...JSON.parse(given))) ?? 'null'""",
            arguments=[{"type": "string", "value": json.dumps(arguments)}],
            target={"context": self.context},
            awaitPromise=True,
        )
        if result["type"] == "exception":
            raise RuntimeError(result["exceptionDetails"]["text"])
        return json.loads(result["result"]["value"])

    def wait_for(self, function, *arguments):
        """Call it again and again until what it returns is true, and return that."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if found := self.evaluate(function, *arguments):
                return found
            time.sleep(0.02)
        raise TimeoutError(f"never true: {function}")

    def _act(self, *actions):
        self._command("input.performActions", actions=list(actions))

    def press(self, key):
        """Press a key on what has the focus: `"a"`, `"ArrowUp"`, `"Shift+ArrowUp"`."""
        keys = [KEYS.get(one, one) for one in key.split("+")]
        steps = [{"type": "keyDown", "value": one} for one in keys]
        steps += [{"type": "keyUp", "value": one} for one in reversed(keys)]
        self._act({"type": "key", "id": "keys", "actions": steps})

    def type(self, text):
        """Write this, letter by letter."""
        steps = [{"type": kind, "value": one} for one in text for kind in ("keyDown", "keyUp")]
        self._act({"type": "key", "id": "keys", "actions": steps})

    def drag(self, *places):
        """Press the mouse at the first place (x, y), in CSS pixels of the window, go through the
        others and let go at the last; a single place is a click."""
        moves = [
            {"type": "pointerMove", "x": round(x), "y": round(y), "duration": 20 * (k > 0)}
            for k, (x, y) in enumerate(places)
        ]
        down, up = ({"type": f"pointer{way}", "button": 0} for way in ("Down", "Up"))
        actions = [moves[0], down, *moves[1:], up]
        self._act({"type": "pointer", "id": "mouse", "actions": actions})

    def screenshot(self):
        """What is seen, as a PNG in base64."""
        return self._command("browsingContext.captureScreenshot")["data"]

    def noise(self, here=HERE):
        """What the page said in the console, what it failed at, and what it asked of others than
        addresses that begin so."""
        self.evaluate("() => new Promise((done) => setTimeout(done, 50))")
        found = []
        for method, params in self._firefox.events(self.context):
            if method == "log.entryAdded":
                found.append(f"{params['level']}: {params['text']}")
            elif not params["request"]["url"].startswith(tuple(here)):
                found.append(f"asked: {params['request']['url']}")
        return found

    def close(self):
        """Close the tab."""
        self._command("browsingContext.close")
