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

#[derive(Debug)]
struct Asked {
    number: u32,
    page: Page,
    intended: Nanos,
    is_repeated: bool,
}

/// One browser.
#[derive(Debug, Default)]
struct Tab {
    connection: Option<Id>,
    is_open: bool,
    /// The first of `waiting` was sent.
    is_asking: bool,
    /// Something was answered on the connection.
    is_used: bool,
    waiting: VecDeque<Asked>,
    etags: [Option<String>; PAGES],
}

/// All browsers.
pub struct Browsers<'a> {
    port: u16,
    accounts: &'a [Account],
    first_tag: usize,
    tabs: Vec<Tab>,
    asked: u32,
    /// Requests of the window.
    pub tally: Tally,
    /// Of those, queues that were the same as before: 304.
    pub unchanged: u64,
    /// Of those, all queues.
    pub queues: u64,
}

impl<'a> Browsers<'a> {
    pub fn new(port: u16, accounts: &'a [Account], first_tag: usize, tally: Tally) -> Self {
        let tabs = accounts.iter().map(|_| Tab::default()).collect();
        Self { port, accounts, first_tag, tabs, asked: 0, tally, unchanged: 0, queues: 0 }
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

    pub fn opened(&mut self, net: &mut Net, id: Id) {
        let place = self.place(id);
        self.tabs[place].is_open = true;
        self.go_on(net, place);
    }

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

    fn failed(&mut self, asked: &Asked, why: &str) {
        if self.tally.counts(asked.intended) {
            self.tally.failed(why, 1);
        }
    }

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
