//! The HTTP side of many browsers: each keeps one connection, asks for gzip, asks again with the last `ETag`, and gives up
//! after `DEADLINE`.
//!
//! Requests have intended times and wait for each other. A connection that the server has closed meanwhile is opened
//! again, and what was asked on it just then is asked once more, as browsers do. A scenario hands on what happens to
//! connections whose tags are from `first_tag` on, and the timers that are [`Browsers::is_mine`].

use std::collections::VecDeque;

use crate::clock::{Nanos, now};
use crate::crowd::Account;
use crate::net::{Dial, Failure, Id, Net, Request, Response, Speaks};
use crate::tally::{DEADLINE, Tally};

/// In the keys of our timers; they have a place and a request's number below.
const TIMER: u64 = 1 << 63;
const PLACE_SHIFT: u32 = 32;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    Queue,
    History,
    Me,
}

const PAGES: usize = 3;

impl Page {
    fn path(self) -> &'static str {
        match self {
            Self::Queue => "/room/queue",
            Self::History => "/room/history",
            Self::Me => "/user/me",
        }
    }
}

/// A request that waits, or is under way.
#[derive(Debug)]
struct Asked {
    /// Names it in its timer.
    number: u32,
    page: Page,
    intended: Nanos,
    /// It was sent before, on a connection that ended just then.
    is_repeated: bool,
}

/// One browser.
#[derive(Debug, Default)]
struct Tab {
    connection: Option<Id>,
    /// It may be written to.
    is_open: bool,
    /// The first of `waiting` was sent.
    is_asking: bool,
    /// Something was answered on the connection.
    is_used: bool,
    /// In the order in which they were asked; at most a few, for each goes at its deadline.
    waiting: VecDeque<Asked>,
    /// Of the last answer of each page.
    etags: [Option<String>; PAGES],
}

/// All browsers.
pub struct Browsers<'a> {
    port: u16,
    accounts: &'a [Account],
    /// Of the connection of the first account; the others follow.
    first_tag: usize,
    tabs: Vec<Tab>,
    /// Requests so far.
    asked: u32,
    /// Requests of the window.
    pub tally: Tally,
    /// Of those, queues that were the same as before: 304.
    pub unchanged: u64,
    /// Of those, all queues.
    pub queues: u64,
}

impl<'a> Browsers<'a> {
    /// One browser for each account. None has a connection before it asks.
    pub fn new(port: u16, accounts: &'a [Account], first_tag: usize, tally: Tally) -> Self {
        let tabs = accounts.iter().map(|_| Tab::default()).collect();
        Self { port, accounts, first_tag, tabs, asked: 0, tally, unchanged: 0, queues: 0 }
    }

    /// Counts anew, by this tally.
    pub fn measure(&mut self, tally: Tally) {
        (self.tally, self.unchanged, self.queues) = (tally, 0, 0);
    }

    /// Whether a connection is one of these.
    pub fn has(&self, id: Id) -> bool {
        id.tag as usize >= self.first_tag
    }

    /// Whether a timer is one of these.
    pub fn is_mine(key: u64) -> bool {
        key & TIMER != 0
    }

    /// Requests of the window that have no answer yet.
    pub fn outstanding(&self) -> usize {
        self.tabs.iter().flat_map(|tab| &tab.waiting).filter(|asked| self.tally.counts(asked.intended)).count()
    }

    /// The browser of this place asks, as it was meant to then.
    pub fn ask(&mut self, net: &mut Net, place: usize, page: Page, intended: Nanos) {
        self.asked = self.asked.wrapping_add(1);
        let asked = Asked { number: self.asked, page, intended, is_repeated: false };
        let left = (intended + DEADLINE).saturating_sub(now());
        net.after(left, TIMER | (place as u64) << PLACE_SHIFT | u64::from(asked.number));
        self.tabs[place].waiting.push_back(asked);
        self.go_on(net, place);
    }

    /// A connection may be used.
    pub fn opened(&mut self, net: &mut Net, id: Id) {
        let place = self.place(id);
        self.tabs[place].is_open = true;
        self.go_on(net, place);
    }

    /// The request that is under way was answered.
    pub fn response(&mut self, net: &mut Net, id: Id, response: &Response<'_>) {
        let place = self.place(id);
        let tab = &mut self.tabs[place];
        tab.is_asking = false;
        tab.is_used = true;
        if let Some(asked) = tab.waiting.pop_front() {
            if response.status == 200 {
                tab.etags[asked.page as usize] = response.etag.map(str::to_owned);
            }
            self.answered(&asked, response.status);
        }
        self.go_on(net, place);
    }

    /// A connection is gone: at rest, which is the server's right; before it was ever used; or under a request.
    pub fn closed(&mut self, net: &mut Net, id: Id, failure: Failure) {
        let place = self.place(id);
        let tab = &mut self.tabs[place];
        let (was_idle, was_asking, was_used) = (tab.is_open && !tab.is_asking, tab.is_asking, tab.is_used);
        tab.forget_connection();
        match tab.waiting.front_mut() {
            Some(asked) if was_asking && was_used && !asked.is_repeated => asked.is_repeated = true,
            Some(_) if !was_idle => {
                let asked = tab.waiting.pop_front().expect("there is a first one");
                self.failed(&asked, &format!("{}: {failure}", asked.page.path()));
            }
            _ => {}
        }
        self.go_on(net, place);
    }

    /// A request has had its time.
    pub fn timer(&mut self, net: &mut Net, key: u64) {
        let (place, number) = ((key & !TIMER) >> PLACE_SHIFT, key as u32);
        let tab = &mut self.tabs[place as usize];
        let Some(at) = tab.waiting.iter().position(|asked| asked.number == number) else { return };
        if at == 0 && (tab.is_asking || !tab.is_open) {
            tab.connection.into_iter().for_each(|id| net.close(id));
            tab.forget_connection();
        }
        if let Some(asked) = tab.waiting.remove(at) {
            self.failed(&asked, &format!("{} was not answered in time", asked.page.path()));
        }
        self.go_on(net, place as usize);
    }

    /// Sends what is next, on a connection that is opened for it if there is none.
    fn go_on(&mut self, net: &mut Net, place: usize) {
        let tab = &mut self.tabs[place];
        let Some(asked) = tab.waiting.front().filter(|_| !tab.is_asking) else { return };
        let Some(id) = tab.connection else {
            let tag = (self.first_tag + place) as u32;
            match net.open(Dial { port: self.port, speaks: Speaks::Http, offers_deflate: false, tag }) {
                Ok(id) => tab.connection = Some(id),
                Err(error) => self.tally.remark(&error.to_string(), 1),
            }
            return;
        };
        if tab.is_open {
            let if_none_match = tab.etags[asked.page as usize].as_deref();
            let request = Request::get(asked.page.path(), &self.accounts[place].token);
            net.request(id, &Request { if_none_match, accepts_gzip: true, ..request });
            tab.is_asking = true;
        }
    }

    /// Counts an answer.
    fn answered(&mut self, asked: &Asked, status: u16) {
        if !self.tally.counts(asked.intended) {
            return;
        }
        if !matches!(status, 200..300 | 304) {
            return self.tally.failed(&format!("{} was answered {status}", asked.page.path()), 1);
        }
        self.tally.happened(now() - asked.intended, asked.page.path());
        if asked.page == Page::Queue {
            self.queues += 1;
            self.unchanged += u64::from(status == 304);
        }
    }

    /// Counts a request without an answer.
    fn failed(&mut self, asked: &Asked, why: &str) {
        if self.tally.counts(asked.intended) {
            self.tally.failed(why, 1);
        }
    }

    /// The place of the browser whose connection it is.
    fn place(&self, id: Id) -> usize {
        id.tag as usize - self.first_tag
    }
}

impl Tab {
    /// What was asked on it is not asked any more.
    fn forget_connection(&mut self) {
        self.connection = None;
        (self.is_open, self.is_asking, self.is_used) = (false, false, false);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;
    use crate::net::Handler;

    struct One(Browsers<'static>);

    impl Handler for One {
        fn opened(&mut self, net: &mut Net, id: Id) {
            self.0.opened(net, id);
        }

        fn response(&mut self, net: &mut Net, id: Id, response: &Response<'_>) {
            self.0.response(net, id, response);
        }

        fn closed(&mut self, net: &mut Net, id: Id, failure: Failure) {
            self.0.closed(net, id, failure);
        }

        fn timer(&mut self, net: &mut Net, key: u64) {
            self.0.timer(net, key);
        }

        fn is_done(&self) -> bool {
            self.0.outstanding() == 0
        }
    }

    /// Asks for the queue twice, one after the other, of a server that deals with its listener so.
    fn ask_twice(serve: impl FnOnce(TcpListener) + Send + 'static) -> Browsers<'static> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || serve(listener));
        let accounts = Box::leak(Box::new([Account { id: "a".to_owned(), token: "t".to_owned() }]));
        let mut net = Net::new().unwrap();
        let mut one = One(Browsers::new(port, accounts, 0, Tally::new(0..Nanos::MAX)));
        for _ in 0..2 {
            one.0.ask(&mut net, 0, Page::Queue, now());
            assert!(net.run(&mut one, now() + 10 * DEADLINE).unwrap());
        }
        one.0
    }

    /// Reads a request's head.
    fn request(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    }

    #[test]
    fn a_request_whose_kept_connection_ends_is_repeated_with_the_last_tag() {
        let browsers = ask_twice(|listener| {
            let (mut first, _) = listener.accept().unwrap();
            request(&mut first);
            first.write_all(b"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 2\r\n\r\n{}").unwrap();
            request(&mut first);
            drop(first);
            let (mut second, _) = listener.accept().unwrap();
            let head = request(&mut second);
            let is_right = head.contains("If-None-Match: \"x\"\r\n") && head.contains("Accept-Encoding: gzip\r\n");
            let status = if is_right { "304 Not Modified" } else { "500 What" };
            write!(second, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
        });
        assert_eq!((browsers.tally.due, browsers.tally.fine), (2, 2), "{:?}", browsers.tally.told());
        assert_eq!((browsers.queues, browsers.unchanged), (2, 1));
    }

    #[test]
    fn what_is_not_answered_is_given_up_and_the_next_asks_on_a_connection_of_its_own() {
        let browsers = ask_twice(|listener| {
            let (mut mute, _) = listener.accept().unwrap();
            request(&mut mute);
            let (mut second, _) = listener.accept().unwrap();
            request(&mut second);
            second.write_all(b"HTTP/1.1 503 Full\r\nContent-Length: 0\r\n\r\n").unwrap();
        });
        assert_eq!((browsers.tally.due, browsers.tally.fine), (2, 0));
        let told = ["/room/queue was answered 503: 1", "/room/queue was not answered in time: 1"];
        assert_eq!(browsers.tally.told(), told);
    }
}
