// A server in Rust, with nothing but its standard library: it takes its socket as
// sd_listen_fds(3) has it, answers one client after the other, and ends on SIGTERM
// when it has none.
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::io::{AsRawFd, FromRawFd};
use std::sync::atomic::{AtomicBool, Ordering};

static LEAVE: AtomicBool = AtomicBool::new(false);

// The standard library waits for no signal and for no descriptor; libc, which it is
// linked with, does.
#[repr(C)]
struct PollFd {
    fd: i32,
    events: i16,
    revents: i16,
}
extern "C" {
    fn signal(signum: i32, handler: extern "C" fn(i32)) -> usize;
    fn poll(fds: *mut PollFd, count: u64, timeout_ms: i32) -> i32;
}
const SIGTERM: i32 = 15;
const POLLIN: i16 = 1;

extern "C" fn on_sigterm(_: i32) {
    LEAVE.store(true, Ordering::SeqCst);
}

// The socket, whose number is the first after stderr.
fn listener() -> TcpListener {
    let number = |key| std::env::var(key).ok().and_then(|v| v.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) || number("LISTEN_FDS") != Some(1) {
        eprintln!("got no socket, or more than one");
        std::process::exit(1);
    }
    unsafe { TcpListener::from_raw_fd(3) }
}

fn serve(mut client: TcpStream) -> std::io::Result<()> {
    client.set_nonblocking(false)?;
    let mut request = Vec::new();
    let mut part = [0; 4096];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        match client.read(&mut part)? {
            0 => return Ok(()),
            n => request.extend_from_slice(&part[..n]),
        }
    }
    write!(
        client,
        "HTTP/1.1 200 OK\r\nX-Version: {}\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n",
        env!("VERSION")
    )?;
    client.shutdown(Shutdown::Write)
}

fn main() -> std::io::Result<()> {
    let listener = listener();
    listener.set_nonblocking(true)?; // the other generation may be faster
    unsafe { signal(SIGTERM, on_sigterm) };
    while !LEAVE.load(Ordering::SeqCst) {
        let mut wait = PollFd { fd: listener.as_raw_fd(), events: POLLIN, revents: 0 };
        if unsafe { poll(&mut wait, 1, 100) } < 1 {
            continue; // nobody came, or a signal did
        }
        match listener.accept() {
            Ok((client, _)) => {
                let _ = serve(client);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
