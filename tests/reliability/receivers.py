# tests/reliability/receivers.py - real syslog servers of the test's own on loopback, and what arrived there.
# SPDX-License-Identifier: Apache-2.0
#
# rsyslog: UDP, TCP, TLS, RELP, RELP over TLS. syslog-ng: UDP, TCP, TLS, in a chroot: its package and rsyslog's exclude each
# other. Every input writes into a file of its own:
# one line a message, structured data and body.
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

SEQ = re.compile(rb'egresswatch@32473 (?:[^\]]*? )?seq="(\d+)"')
SYSLOG_NG = "usr/sbin/syslog-ng"
SYSLOG_NG_PACKAGES = ("syslog-ng-core", "libivykis0", "libnet1", "libwrap0", "libjson-c5")


def free_port():
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        while True:
            tcp.bind(("127.0.0.1", 0))
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                return free_port()
            return tcp.getsockname()[1]


def eventually(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


class Certificates:
    def __init__(self, folder):
        self.folder = folder
        os.makedirs(folder)
        self._openssl("req", "-x509", *self._new_key("ca"), "-days", "2", "-subj", "/CN=authority",
                      "-addext", "basicConstraints=critical,CA:TRUE", "-out", self.path("ca.pem"))
        self.issue("server")

    def path(self, name):
        return os.path.join(self.folder, name)

    def _new_key(self, name):
        return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", self.path(name + ".key"))

    def _openssl(self, *arguments):
        subprocess.run(("openssl", *arguments), check=True, stderr=subprocess.DEVNULL)

    def issue(self, name, address="127.0.0.1", days=1):
        with open(self.path("extensions"), "w", encoding="ascii") as file:
            file.write(f"subjectAltName=IP:{address}\n")
        self._openssl("req", *self._new_key(name), "-subj", "/CN=127.0.0.1", "-out", self.path("request"))
        self._openssl("x509", "-req", "-in", self.path("request"), "-CA", self.path("ca.pem"), "-CAkey", self.path("ca.key"),
                      "-CAcreateserial", "-days", str(days), "-extfile", self.path("extensions"),
                      "-out", self.path(name + ".pem"))


class Receiver:
    """A server with the ports of `transports`; `out`: the folder of its files."""
    name = ""
    transports = ()

    def __init__(self, folder, certificates, out=None):
        self.folder = folder
        self.certificates = certificates
        self.out = out or os.path.join(folder, "out")
        os.makedirs(folder, exist_ok=True)
        os.makedirs(self.out, exist_ok=True)
        self.ports = {transport: free_port() for transport in self.transports}
        self.process = None

    def keep_only(self, transports):
        self.transports = transports
        self.ports = {transport: self.ports[transport] for transport in transports}

    def file(self, transport):
        return os.path.join(self.out, transport)

    def start(self):
        self.process = self._run()
        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self.process.returncode}: see {self.folder}/stderr")
            for transport, port in self.ports.items():
                if transport == "udp":
                    continue
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) != 0:
                        return False
            return True
        eventually(ready, 30, f"{self.name} listens")

    def end(self, with_signal=signal.SIGTERM):
        if self.process is not None:
            self.process.send_signal(with_signal)
            self.process.wait()
            self.process = None

    def arrived(self, transport):
        """How often each number came, and how many lines are no message of ours."""
        times, bogus = {}, 0
        try:
            with open(self.file(transport), "rb") as file:
                for line in file:
                    match = SEQ.search(line)
                    # Structured data and body end as they should: nothing is cut.
                    if match and line.endswith(b"}\n"):
                        seq = int(match[1])
                        times[seq] = times.get(seq, 0) + 1
                    else:
                        bogus += 1
        except FileNotFoundError:
            pass
        return times, bogus


class Rsyslog(Receiver):
    name = "rsyslog"
    transports = ("udp", "tcp", "tls", "relp", "relp-tls")

    # Whether the file is written by a program that confirms each message: rsyslog's own omfile discards, on a full disk,
    # what it has acknowledged.
    confirming_store = False

    def _store(self, transport):
        if not self.confirming_store:
            return f'type="omfile" file="{self.file(transport)}" flushOnTXEnd="on" ioBufferSize="64k"'
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "confirming_store.py")
        return f'type="omprog" binary="{program} {self.file(transport)}" confirmMessages="on" useTransactions="off"'

    def _config(self):
        path = self.certificates.path
        inputs = {
            "udp": 'type="imudp"', "tcp": 'type="imptcp"', "tls": 'type="imtcp"', "relp": 'type="imrelp"',
            "relp-tls": f'type="imrelp" tls="on" tls.caCert="{path("ca.pem")}" tls.myCert="{path("server.pem")}"'
                        f' tls.myPrivKey="{path("server.key")}"'}
        lines = [
            f'global(workDirectory="{self.folder}" maxMessageSize="64k" DefaultNetstreamDriverCAFile="{path("ca.pem")}"'
            f' DefaultNetstreamDriverCertFile="{path("server.pem")}" DefaultNetstreamDriverKeyFile="{path("server.key")}")',
            'module(load="omprog") module(load="imudp") module(load="imptcp") module(load="imrelp" tls.tlslib="openssl")',
            'module(load="imtcp" StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="anon")',
            'template(name="line" type="string" string="%structured-data% %msg%\\n")']
        for transport in self.transports:
            # No queue between input and file: what the receiver has acknowledged, it has written or still tries to.
            lines.append(f'ruleset(name="{transport}" queue.type="Direct") {{ action({self._store(transport)}'
                         f' template="line" action.resumeRetryCount="-1" action.resumeInterval="1") }}')
            lines.append(f'input({inputs[transport]} address="127.0.0.1" port="{self.ports[transport]}"'
                         f' ruleset="{transport}")')
        return "\n".join(lines) + "\n"

    def _run(self):
        config = os.path.join(self.folder, "rsyslog.conf")
        with open(config, "w", encoding="ascii") as file:
            file.write(self._config())
        with open(os.path.join(self.folder, "stderr"), "ab") as errors:
            return subprocess.Popen(("rsyslogd", "-n", "-f", config, "-i", os.path.join(self.folder, "pid")),
                                    stdout=errors, stderr=errors)


def make_syslog_ng_root(folder):
    """A root with nothing but Debian's syslog-ng and the libraries that it needs. Once for each folder."""
    root = os.path.join(folder, "root")
    if not os.path.exists(os.path.join(root, "complete")):
        packages = os.path.join(folder, "packages")
        shutil.rmtree(root, ignore_errors=True)
        os.makedirs(packages, exist_ok=True)
        subprocess.run(("apt-get", "download", "-q", *SYSLOG_NG_PACKAGES), cwd=packages, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for package in os.listdir(packages):
            subprocess.run(("dpkg", "-x", os.path.join(packages, package), root), check=True)
        copy_libraries(root)
        with open(os.path.join(root, "complete"), "w", encoding="ascii"):
            pass
    return root


def copy_libraries(root):
    """What the dynamic linker finds on this host for syslog-ng and its modules, into `root`."""
    own = os.path.join(root, "usr/lib/syslog-ng")
    inside = [os.path.join(at, name) for at, _, names in os.walk(own) for name in names if ".so" in name]
    search = ":".join((own, os.path.join(own, "3.38"), os.path.join(root, "usr/lib/x86_64-linux-gnu")))
    listed = subprocess.run(("ldd", os.path.join(root, SYSLOG_NG), *inside), check=True, capture_output=True, text=True,
                            env={**os.environ, "LD_LIBRARY_PATH": search}).stdout
    for name in ("lib", "lib64"):
        os.makedirs(os.path.join(root, "usr", name), exist_ok=True)
        if not os.path.lexists(os.path.join(root, name)):
            os.symlink(os.path.join("usr", name), os.path.join(root, name))
    for path in sorted(set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", listed, re.MULTILINE))):
        if not path.startswith(root):
            target = root + path
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy(path, target)


def open_to_root(root, folder):
    """`folder` has the same name inside. For a mount namespace of the caller's own, which ends with it."""
    inside = root + folder
    top = root + tempfile.gettempdir()
    os.makedirs(top, exist_ok=True)
    subprocess.run(("mount", "-t", "tmpfs", "tmpfs", top), check=True)  # so that nothing of this run stays in `root`
    os.makedirs(inside)
    subprocess.run(("mount", "--bind", folder, inside), check=True)


class SyslogNg(Receiver):
    name = "syslog-ng"
    transports = ("udp", "tcp", "tls")

    def __init__(self, root, *arguments):
        super().__init__(*arguments)
        self.root = root

    def _config(self):
        path = self.certificates.path
        tls = f'tls(key-file("{path("server.key")}") cert-file("{path("server.pem")}") peer-verify(optional-untrusted))'
        lines = ["@version: 3.38", "options { keep-hostname(yes); use-dns(no); };"]
        for transport in self.transports:
            lines.append(
                f'log {{ source {{ syslog(ip("127.0.0.1") port({self.ports[transport]}) transport("{transport}")'
                f' {tls if transport == "tls" else ""}); }};'
                f' destination {{ file("{self.file(transport)}" template("${{SDATA}} ${{MSG}}\\n")); }}; }};')
        return "\n".join(lines) + "\n"

    def _run(self):
        config = os.path.join(self.folder, "syslog-ng.conf")
        with open(config, "w", encoding="ascii") as file:
            file.write(self._config())
        def at(name):
            return os.path.join(self.folder, name)
        with open(at("stderr"), "ab") as errors:
            return subprocess.Popen(
                ("chroot", self.root, f"/{SYSLOG_NG}", "-F", "-f", config, "-R", at("persist"), "-c", at("control"),
                 "-p", at("pid"), "--no-caps"), stdout=errors, stderr=errors)
