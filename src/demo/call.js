// One side of a call's media (WebRTC). The server only carries what the two browsers have to tell each other.
//
// Every offer begins a new connection on both sides. So whoever comes back without the old one, after a reload or a
// failure, simply offers again. Each offer has an id; answers and candidates repeat it, and late ones are recognised.

export class Peer {
  #connection;
  #id;

  /**
   * `stream`: what to send. `isInitiator`: whose offer stands if both offer at once. `send(event, payload)`: to the
   * other side. `onStream(stream)`, `onState(state)`: what comes from there, and how it comes ("connected", …).
   */
  constructor({ stream, iceServers, isInitiator, send, onStream, onState }) {
    Object.assign(this, { stream, iceServers, isInitiator, send, onStream, onState });
  }

  async offer() {
    const connection = this.#begin(Math.random().toString(36).slice(2));
    for (const kind of ["audio", "video"]) {
      // Without a camera one can still watch.
      if (!this.stream.getTracks().some((track) => track.kind === kind)) connection.addTransceiver(kind, { direction: "recvonly" });
    }
    await connection.setLocalDescription();
    this.#tell(connection, "rtc:offer", "offer", connection.localDescription);
  }

  /** Takes what the other side has sent; what is of an older offer is dropped. */
  async receive(event, { offer, answer, candidate }) {
    const before = this.#connection;
    try {
      if (event === "rtc:offer") await this.#answer(offer);
      else if (!this.#isCurrent(answer ?? candidate)) return;
      else if (event === "rtc:ice") await before.addIceCandidate(candidate);
      else if (before.signalingState === "have-local-offer") await before.setRemoteDescription(answer);
    } catch (error) {
      // A connection that was given up in the meantime may fail.
      if (before === this.#connection) throw error;
    }
  }

  /** How the media travel: `{local, remote, ms}`, the kinds of the two candidates in use and the time there and back. */
  async route() {
    const reports = await this.#connection?.getStats();
    const pair = [...(reports?.values() ?? [])].find((report) => report.type === "candidate-pair" && report.nominated && report.state === "succeeded");
    const kind = (id) => reports.get(id)?.candidateType;
    return pair && { local: kind(pair.localCandidateId), remote: kind(pair.remoteCandidateId), ms: Math.round(pair.currentRoundTripTime * 1000) };
  }

  close() {
    this.#connection?.close();
    this.#connection = undefined;
  }

  async #answer(offer) {
    // Both have offered: the initiator's counts, and is made anew for a page that may have missed the first.
    if (this.isInitiator && this.#connection?.signalingState === "have-local-offer") return this.offer();
    const connection = this.#begin(offer.id);
    await connection.setRemoteDescription(offer);
    await connection.setLocalDescription();
    this.#tell(connection, "rtc:answer", "answer", connection.localDescription);
  }

  #begin(id) {
    this.close();
    const connection = new RTCPeerConnection({ iceServers: this.iceServers });
    this.#connection = connection;
    this.#id = id;
    this.stream.getTracks().forEach((track) => connection.addTrack(track, this.stream));
    connection.onicecandidate = ({ candidate }) => candidate && this.#tell(connection, "rtc:ice", "candidate", candidate);
    connection.ontrack = ({ streams }) => this.onStream(streams[0]);
    connection.onconnectionstatechange = () => {
      this.onState(connection.connectionState);
      const isOurs = connection === this.#connection;
      if (isOurs && connection.connectionState === "failed" && this.isInitiator) this.offer();
    };
    return connection;
  }

  #tell(connection, event, field, value) {
    if (connection === this.#connection) this.send(event, { [field]: { ...value.toJSON(), id: this.#id } });
  }

  /** Other clients may give no id: what they say is taken as it comes. */
  #isCurrent({ id }) {
    return this.#connection && (id === undefined || id === this.#id);
  }
}
