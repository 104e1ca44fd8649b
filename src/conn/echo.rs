//! What suites for Socket.IO servers expect of one: `auth` on connect, `message` answered by `message-back`,
//! `message-with-ack` acknowledged, each with its own arguments and attachments, in namespaces `/` and `/custom`.
//!
//! Only where [`super::Settings::is_conformance_target`] says so; the product never gets here.

use super::Context;
use super::frames::{Failure, MALFORMED};
use super::socket::{Session, Socket};
use crate::wire::socketio::{self, Kind, Packet};

impl Socket {
    /// Answers one whole packet.
    pub(super) fn echo(
        &mut self,
        context: &mut Context,
        packet: Packet,
        attachments: &[Vec<u8>],
    ) -> Result<(), Failure> {
        let is_known = matches!(packet.namespace, "/" | "/custom");
        let is_connected = self.is_connected(packet.namespace);
        match packet.kind {
            Kind::Connect if !is_known => {
                let refusal = socketio::encode_connect_error(packet.namespace, "Invalid namespace");
                self.write_packet(context, &refusal);
            }
            Kind::Connect if !is_connected => {
                self.set_connected(packet.namespace, true);
                self.unbound_until = None;
                let sid = context.session_id(packet.namespace);
                self.write_packet(context, &socketio::encode_connected(packet.namespace, &sid));
                let auth = if packet.data.is_empty() { "{}" } else { packet.data };
                let auth = format!(r#"2{}["auth",{auth}]"#, socketio::prefix(packet.namespace));
                self.write_packet(context, &auth);
            }
            Kind::Disconnect if is_connected => self.set_connected(packet.namespace, false),
            Kind::Event if is_connected => self.echo_event(context, packet, attachments)?,
            Kind::Ack if is_connected => {}
            _ => return Err(MALFORMED),
        }
        Ok(())
    }

    fn set_connected(&mut self, namespace: &str, is_connected: bool) {
        match namespace {
            "/" => self.session = if is_connected { Session::Connected } else { Session::Opened },
            _ => self.is_custom_connected = is_connected,
        }
    }

    fn echo_event(&mut self, context: &mut Context, packet: Packet, attachments: &[Vec<u8>]) -> Result<(), Failure> {
        let (name, arguments) = socketio::split_event(packet.data).ok_or(MALFORMED)?;
        let (kind, id, items) = match (name, packet.ack) {
            ("\"message\"", _) => (Kind::Event, "", [&["\"message-back\""], arguments.as_slice()].concat()),
            ("\"message-with-ack\"", Some(id)) => (Kind::Ack, id, arguments),
            _ => return Ok(()),
        };
        let kind = match (kind, attachments.len()) {
            (Kind::Event, 0) => "2".to_owned(),
            (Kind::Event, count) => format!("5{count}-"),
            (_, 0) => "3".to_owned(),
            (_, count) => format!("6{count}-"),
        };
        let answer = format!("{kind}{}{id}[{}]", socketio::prefix(packet.namespace), items.join(","));
        self.write_packet(context, &answer);
        attachments.iter().for_each(|attachment| self.write_binary(context, attachment));
        Ok(())
    }
}
