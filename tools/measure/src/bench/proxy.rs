//! The balancers that are measured: lb in its modes, nginx, haproxy, each as one process with one worker in front of the
//! same two backends on Unix sockets. And the least that hands off and the least that forwards, for what the kernel takes.
//!
//! nginx and haproxy are set up as well as they can be for this work: kept connections to the backends, no log of
//! requests, no buffering that a request of this size would not have anyway, keep-alive without an end.

use crate::bench::env::BenchEnv;
use crate::bench::process::{Process, installed, left_out};
use anyhow::Context;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use wire::socket::backend_path;

/// Connections that a balancer takes; far more than any measurement has. haproxy wants twice as many descriptors, and
/// some machines have only 20,000.
const CONNECTIONS_MAX: u32 = 8_000;

/// The backends' names.
pub const BACKENDS: [&str; 2] = ["one", "two"];

/// What is between client and backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// No balancer: the client speaks to a backend over TCP.
    Without,
    /// Ours, in this mode.
    Lb(String),
    /// One that accepts, sends and closes, and nothing else.
    LeastHandOff,
    /// One that passes bytes on, and nothing else.
    LeastForward,
    /// nginx.
    Nginx,
    /// haproxy.
    Haproxy,
}

impl Proxy {
    /// How it is called in tables.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Without => "backend alone".into(),
            Self::Lb(mode) => format!("lb, {mode}"),
            Self::LeastHandOff => "the least hand-off".into(),
            Self::LeastForward => "the least forward".into(),
            Self::Nginx => "nginx".into(),
            Self::Haproxy => "haproxy".into(),
        }
    }

    /// Whether it is there; otherwise what to say.
    ///
    /// # Errors
    /// The line that says that it is left out.
    pub fn is_installed(&self) -> Result<(), String> {
        match self {
            Self::Without | Self::Lb(_) | Self::LeastHandOff | Self::LeastForward => Ok(()),
            Self::Nginx => installed("nginx").map(drop).ok_or_else(|| left_out("nginx", "nginx-light")),
            Self::Haproxy => installed("haproxy").map(drop).ok_or_else(|| left_out("haproxy", "haproxy")),
        }
    }

    /// Starts it, and waits until it accepts connections. `Without` starts nothing.
    ///
    /// Those that are measured in turn are best given the same address: a kernel that tracks connections remembers each for
    /// two minutes after its end, by both ports, and takes no new one once it remembers as many as it may.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(&self, env: &BenchEnv, addr: SocketAddr) -> anyhow::Result<Option<Process>> {
        let (name, command) = match self {
            Self::Without => return Ok(None),
            Self::Lb(mode) => ("lb", lb(&env.binaries.path("lb"), mode, addr, &env.dir)),
            Self::LeastHandOff => ("least", least(addr, env, "--control", control_path)?),
            Self::LeastForward => ("least", least(addr, env, "--socket", backend_path)?),
            Self::Nginx => ("nginx", nginx(addr, &env.dir)?),
            Self::Haproxy => ("haproxy", haproxy(addr, &env.dir)?),
        };
        let mut process = Process::start(name, command, &env.dir)?;
        process.until(|| TcpStream::connect(addr))?;
        Ok(Some(process))
    }
}

/// Starts the backends on Unix sockets, on TCP for those who go without a balancer, and where lb hands off.
///
/// # Errors
/// When one does not start.
pub fn start_backends(env: &BenchEnv) -> anyhow::Result<(Vec<Process>, SocketAddr)> {
    let mut alone = None;
    let mut backends = Vec::new();
    for name in BACKENDS {
        let addr = free_addr()?;
        let (socket, control) = (backend_path(&env.dir, name), control_path(&env.dir, name));
        let mut command = Command::new(BenchEnv::ourselves()?);
        command.args(["fixed-server", "--listen"]).arg(addr.to_string());
        command.arg("--socket").arg(&socket).arg("--control").arg(&control);
        let mut backend = Process::start(name, command, &env.dir)?;
        backend.until(|| TcpStream::connect(addr))?;
        // It has bound the sockets once it accepts: the TCP listener comes first, so all three are looked for.
        backend.until(|| fs::metadata(&control).and_then(|_| fs::metadata(&socket)))?;
        alone.get_or_insert(addr);
        backends.push(backend);
    }
    Ok((backends, alone.context("there is a backend")?))
}

/// An address without a listener at this moment.
///
/// # Errors
/// When there is none.
pub fn free_addr() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn lb(program: &Path, mode: &str, addr: SocketAddr, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("--socket-dir").arg(dir).arg("--listen").arg(addr.to_string());
    command.args(["--backends", &BACKENDS.join(","), "--mode", mode]);
    command.args(["--connections-max", &CONNECTIONS_MAX.to_string()]);
    command
}

fn control_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.control"))
}

fn least(
    addr: SocketAddr,
    env: &BenchEnv,
    kind: &str,
    path: fn(&Path, &str) -> PathBuf,
) -> io::Result<Command> {
    let mut command = Command::new(BenchEnv::ourselves()?);
    command.args(["fixed-balancer", "--listen"]).arg(addr.to_string());
    for name in BACKENDS {
        command.arg(kind).arg(path(&env.dir, name));
    }
    Ok(command)
}

fn nginx(addr: SocketAddr, dir: &Path) -> anyhow::Result<Command> {
    let config = write(dir, "nginx.conf", &nginx_config(addr, dir))?;
    let mut command = Command::new(installed("nginx").context("nginx was there before")?);
    command.arg("-c").arg(config).arg("-p").arg(dir).args(["-e", "stderr"]);
    Ok(command)
}

fn haproxy(addr: SocketAddr, dir: &Path) -> anyhow::Result<Command> {
    let config = write(dir, "haproxy.cfg", &haproxy_config(addr, dir))?;
    let mut command = Command::new(installed("haproxy").context("haproxy was there before")?);
    command.arg("-f").arg(config).arg("-db");
    Ok(command)
}

fn write(dir: &Path, name: &str, text: &str) -> io::Result<PathBuf> {
    let path = dir.join(name);
    fs::write(&path, text)?;
    Ok(path)
}

/// One process, so that it ends with us: a worker of its own would outlive a master that is killed, and serves the same.
fn nginx_config(addr: SocketAddr, dir: &Path) -> String {
    let servers: String = BACKENDS
        .iter()
        .map(|name| format!("        server unix:{} max_fails=0;\n", backend_path(dir, name).display()))
        .collect();
    let dir = dir.display();
    // nginx counts the connections to backends too.
    let descriptors = 2 * CONNECTIONS_MAX;
    format!(
        "daemon off;
master_process off;
pid {dir}/nginx.pid;
error_log stderr error;
events {{
    worker_connections {descriptors};
    multi_accept on;
}}
http {{
    access_log off;
    client_body_temp_path {dir}/nginx-body;
    proxy_temp_path {dir}/nginx-proxy;
    fastcgi_temp_path {dir}/nginx-fastcgi;
    uwsgi_temp_path {dir}/nginx-uwsgi;
    scgi_temp_path {dir}/nginx-scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
    tcp_nodelay on;
    upstream backends {{
        least_conn;
{servers}        keepalive 512;
        keepalive_requests 1000000000;
        keepalive_timeout 3600s;
    }}
    server {{
        listen {addr} backlog=4096 deferred;
        location / {{
            proxy_pass http://backends;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffering off;
        }}
    }}
}}
"
    )
}

fn haproxy_config(addr: SocketAddr, dir: &Path) -> String {
    let servers: String = BACKENDS
        .iter()
        .map(|name| format!("    server {name} unix@{}\n", backend_path(dir, name).display()))
        .collect();
    format!(
        "global
    nbthread 1
    maxconn {CONNECTIONS_MAX}
defaults
    mode http
    option http-keep-alive
    http-reuse always
    balance leastconn
    timeout connect 1s
    timeout client 1h
    timeout server 1h
    timeout http-keep-alive 1h
frontend clients
    bind {addr} backlog 4096 defer-accept
    default_backend backends
backend backends
{servers}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_configurations_name_the_address_and_every_backend() {
        let addr = "127.0.0.1:9999".parse().unwrap();
        for config in [nginx_config(addr, Path::new("/run/x")), haproxy_config(addr, Path::new("/run/x"))] {
            for part in ["127.0.0.1:9999", "/run/x/one.sock", "/run/x/two.sock"] {
                assert!(config.contains(part), "{part} in {config}");
            }
        }
    }
}
