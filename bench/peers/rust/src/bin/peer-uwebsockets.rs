//! The raw WebSocket peer on uWebSockets, through the C functions of the library that the PyPI package `socketify`
//! carries: echo; a message that starts with `*` goes to every connection.
//!
//! One thread, as the library has it, on libuv, as that build has it. `UWS_LIBRARY` names the file; without it, it lies
//! in the folder above that of this program, where `bench/peers/build` puts it. An echo is sent within the callback,
//! where the library gathers what it writes.

use std::env;
use std::error::Error;
use std::ffi::{c_char, c_int, c_uint, c_ushort, c_void};
use std::path::PathBuf;
use std::ptr::{null, null_mut};
use std::slice;
use std::sync::OnceLock;

use libloading::Library;

/// No TLS: the first argument of nearly every function.
const PLAIN: c_int = 0;
const MESSAGE_MAX: c_uint = 1 << 20;
const UNSENT_MAX: c_uint = 1 << 26;
const EVERYBODY: &[u8] = b"everybody";

/// Their types that we only hand around.
type App = *mut c_void;
type Loop = *mut c_void;
type Socket = *mut c_void;

#[repr(C)]
struct TlsOptions {
    texts: [*const c_char; 6],
    prefers_low_memory: c_int,
}

#[repr(C)]
struct ListenConfig {
    port: c_int,
    host: *const c_char,
    options: c_int,
}

type OnSocket = unsafe extern "C" fn(Socket, *mut c_void);
type OnMessage = unsafe extern "C" fn(Socket, *const c_char, usize, c_int, *mut c_void);
type OnListen = unsafe extern "C" fn(*mut c_void, ListenConfig, *mut c_void);

#[repr(C)]
struct Behavior {
    compression: c_int,
    max_payload_length: c_uint,
    idle_timeout: c_ushort,
    max_backpressure: c_uint,
    close_on_backpressure_limit: bool,
    reset_idle_timeout_on_send: bool,
    send_pings_automatically: bool,
    max_lifetime: c_ushort,
    upgrade: *const c_void,
    open: Option<OnSocket>,
    message: Option<OnMessage>,
    /// drain, ping, pong, close, subscription
    others: [*const c_void; 5],
}

/// The functions that we use, looked up once.
struct Functions {
    app: usize,
    send: unsafe extern "C" fn(c_int, Socket, *const c_char, usize, c_int) -> c_int,
    subscribe: unsafe extern "C" fn(c_int, Socket, *const c_char, usize) -> bool,
    publish: unsafe extern "C" fn(c_int, App, *const c_char, usize, *const c_char, usize, c_int, bool) -> bool,
    local_port: unsafe extern "C" fn(c_int, *mut c_void) -> c_int,
}

static FUNCTIONS: OnceLock<Functions> = OnceLock::new();

fn main() -> Result<(), Box<dyn Error>> {
    let port = env::var("PORT").map_or(Ok(0), |port| port.parse())?;
    // SAFETY: the signatures are those of the package's own declarations; the library stays loaded, for this
    // function does not return while it runs, and it calls back on this thread only.
    unsafe { run(&Library::new(library()?)?, port) }
}

fn library() -> Result<PathBuf, Box<dyn Error>> {
    if let Some(path) = env::var_os("UWS_LIBRARY") {
        return Ok(path.into());
    }
    let program = env::current_exe()?;
    let folder = program.ancestors().nth(2).ok_or("no folder above this program's")?;
    Ok(folder.join("libsocketify_linux_amd64.so"))
}

unsafe fn run(library: &Library, port: c_int) -> Result<(), Box<dyn Error>> {
    unsafe {
        let create_loop = library.get::<unsafe extern "C" fn() -> Loop>(b"socketify_create_loop")?;
        let native_loop = library.get::<unsafe extern "C" fn(Loop) -> *mut c_void>(b"socketify_get_native_loop")?;
        let adopt_loop =
            library.get::<unsafe extern "C" fn(*mut c_void) -> *mut c_void>(b"uws_get_loop_with_native")?;
        let run_loop = library.get::<unsafe extern "C" fn(Loop, c_int) -> c_int>(b"socketify_loop_run")?;
        let create_app = library.get::<unsafe extern "C" fn(c_int, TlsOptions) -> App>(b"uws_create_app")?;
        let websocket =
            library.get::<unsafe extern "C" fn(c_int, App, *const c_char, Behavior, *mut c_void)>(b"uws_ws")?;
        let listen = library.get::<unsafe extern "C" fn(c_int, App, ListenConfig, OnListen, *mut c_void)>(
            b"uws_app_listen_with_config",
        )?;

        let running = create_loop();
        adopt_loop(native_loop(running));
        let app = create_app(PLAIN, TlsOptions { texts: [null(); 6], prefers_low_memory: 0 });
        FUNCTIONS.get_or_init(|| Functions {
            app: app as usize,
            send: *library.get(b"uws_ws_send").expect("it is in the library"),
            subscribe: *library.get(b"uws_ws_subscribe").expect("it is in the library"),
            publish: *library.get(b"uws_publish").expect("it is in the library"),
            local_port: *library.get(b"us_socket_local_port").expect("it is in the library"),
        });
        websocket(PLAIN, app, c"/*".as_ptr(), behavior(), null_mut());
        let config = ListenConfig { port, host: c"127.0.0.1".as_ptr(), options: 0 };
        listen(PLAIN, app, config, listening, null_mut());
        run_loop(running, 0);
    }
    Ok(())
}

fn behavior() -> Behavior {
    Behavior {
        compression: 0,
        max_payload_length: MESSAGE_MAX,
        idle_timeout: 0,
        max_backpressure: UNSENT_MAX,
        close_on_backpressure_limit: false,
        reset_idle_timeout_on_send: false,
        send_pings_automatically: false,
        max_lifetime: 0,
        upgrade: null(),
        open: Some(opened),
        message: Some(received),
        others: [null(); 5],
    }
}

fn functions() -> &'static Functions {
    FUNCTIONS.get().expect("they are looked up before anything is called back")
}

unsafe extern "C" fn listening(listener: *mut c_void, config: ListenConfig, _: *mut c_void) {
    assert!(!listener.is_null(), "cannot listen on port {}", config.port);
    println!("listening on http://127.0.0.1:{}", unsafe { (functions().local_port)(PLAIN, listener) });
}

unsafe extern "C" fn opened(socket: Socket, _: *mut c_void) {
    unsafe { (functions().subscribe)(PLAIN, socket, EVERYBODY.as_ptr().cast(), EVERYBODY.len()) };
}

unsafe extern "C" fn received(socket: Socket, message: *const c_char, len: usize, opcode: c_int, _: *mut c_void) {
    let Functions { app, send, publish, .. } = functions();
    let content = unsafe { slice::from_raw_parts(message.cast::<u8>(), len) };
    unsafe {
        if content.first() == Some(&b'*') {
            publish(PLAIN, *app as App, EVERYBODY.as_ptr().cast(), EVERYBODY.len(), message, len, opcode, false);
        } else {
            send(PLAIN, socket, message, len, opcode);
        }
    }
}
