"""A network that can be cut: a TCP proxy on the loopback, between one client and one server."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

BLOCK = 64 * 1024


class Proxy:
    """Forwards `port` to `target` until `cut`, by hand or after so many bytes towards the target; `mend` undoes it."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent = 0
        """Bytes towards the target."""
        self.cut_at: int | None = None
        """Number of `sent` at which the network is cut."""
        self.is_cut = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """What is under way is torn off, and what comes is refused."""
        self.is_cut.set()
        with self._lock:
            ends, self._open = self._open, set()
        for end in ends:
            _close(end)

    def mend(self) -> None:
        self.cut_at = None
        self.is_cut.clear()

    def close(self) -> None:
        _close(self._listener)
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_cut.is_set():
                _close(client)
                continue
            try:
                server = socket.create_connection(self._target)
            except OSError:
                _close(client)
                continue
            with self._lock:
                self._open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink, sink is server), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, towards_target: bool) -> None:
        try:
            while block := source.recv(BLOCK):
                sink.sendall(block)
                if towards_target:
                    with self._lock:
                        self.sent += len(block)
                        reached = self.cut_at is not None and self.sent >= self.cut_at
                    if reached:
                        self.cut()
        except OSError:
            return  # torn off
        finally:
            _close(source)
            _close(sink)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
