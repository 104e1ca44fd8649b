// A real proxy in front of a server, as a process of the test's own, with the example file that README shows.
//
// The examples stand in systemd/proxies. Put into them here are ports, folders and a certificate, and what a test names:
// another PROXY header, a quicker check, a second server.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { freshAddress, kept, request } from "./client.mjs";
import { eventually, freePort, temporaryFolder } from "./server.mjs";

const EXAMPLES = fileURLToPath(new URL("../../systemd/proxies/", import.meta.url));
/** Where Debian puts them; a user's PATH may lack it. */
const PATH = `${process.env.PATH}:/usr/sbin`;
const START_MS = 20_000;

const running = new Set();
// With SIGTERM nginx ends its workers.
process.on("exit", () => running.forEach((child) => child.kill("SIGTERM")));

/** The text of an example in which each of these words stands for another; all must be there. At once, for what is put in may
 * look like the next. */
function filled(name, words) {
  const text = readFileSync(join(EXAMPLES, name), "utf8");
  for (const word of Object.keys(words)) assert.ok(text.includes(word), `${name} has no ${word}`);
  const any = Object.keys(words).map((word) => word.replace(/[.{]/g, "\\$&")).join("|");
  return text.replace(new RegExp(any, "g"), (word) => words[word]);
}

const haproxy = (example, words) => ({ server, folder, plain, secure, more }) => {
  const ports = { "bind :80": `bind 127.0.0.1:${plain}`, "bind :443": `bind 127.0.0.1:${secure}`, "127.0.0.1:3001": `127.0.0.1:${server.port}` };
  const tls = { "/etc/haproxy/duet.pem": join(folder, "both.pem") };
  writeFileSync(join(folder, "haproxy.cfg"), `global\n    stats socket ${join(folder, "admin")} level admin\n`);
  writeFileSync(join(folder, "duet.cfg"), filled(example, { ...ports, ...tls, ...words, ...more }));
  return ["haproxy", "-db", "-f", join(folder, "haproxy.cfg"), "-f", join(folder, "duet.cfg")];
};

function nginx({ server, folder, plain, secure, more }) {
  const words = {
    "127.0.0.1:3001": `127.0.0.1:${server.port}`,
    "listen 80": `listen 127.0.0.1:${plain}`,
    "listen 443": `listen 127.0.0.1:${secure}`,
    "/etc/nginx/duet.pem": join(folder, "certificate.pem"),
    "/etc/nginx/duet.key": join(folder, "key.pem"),
  };
  writeFileSync(join(folder, "duet.conf"), filled("nginx.conf", { ...words, ...more }));
  const folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${folder}/${name};`);
  // What Debian's nginx.conf would say. Its workers run as another user, who may not come to this folder.
  writeFileSync(join(folder, "nginx.conf"), `
    ${process.getuid() === 0 ? "user root;" : ""}
    daemon off; pid ${folder}/pid; error_log ${folder}/errors; worker_processes 2;
    events { worker_connections 768; }
    http { ${folders.join(" ")} include ${folder}/duet.conf; }`);
  return ["nginx", "-p", folder, "-e", join(folder, "errors"), "-c", join(folder, "nginx.conf")];
}

function caddy({ server, folder, secure, more }) {
  const general = "{\n\tadmin off\n\tauto_https off\n\tgrace_period 1s\n\tservers {\n\t\tprotocols h1 h2\n\t}\n}\n\n";
  const site = `${general}https://127.0.0.1:${secure} {\n\tbind 127.0.0.1\n\ttls ${folder}/certificate.pem ${folder}/key.pem`;
  writeFileSync(join(folder, "Caddyfile"), filled("Caddyfile", { "duet.example.org {": site, "127.0.0.1:3001": `127.0.0.1:${server.port}`, ...more }));
  return ["caddy", "run", "--config", join(folder, "Caddyfile"), "--adapter", "caddyfile"];
}

const HTTP = { "trusted-proxies": "127.0.0.1", environment: "production", "allowed-origins": "https://www.example.org" };
const TCP = { ...HTTP, "proxy-protocol": "on" };
/** Another form of the PROXY header, which does not tell of TLS. */
const sending = (form) => haproxy("haproxy-tcp.cfg", { "send-proxy-v2-ssl": form });

/** Each way to be in front: the flags that its example names for duet, its command, whether it is asked by TLS, whether duet
 * redirects what comes without, and what HTTP/2 it offers. */
export const FRONTS = {
  "HAProxy, TCP, send-proxy-v2-ssl": { flags: TCP, isSecure: true, redirects: true, make: haproxy("haproxy-tcp.cfg") },
  "HAProxy, TCP, send-proxy-v2": { flags: { ...TCP, environment: "plain" }, make: sending("send-proxy-v2") },
  "HAProxy, TCP, send-proxy": { flags: { ...TCP, environment: "plain" }, make: sending("send-proxy") },
  "HAProxy, HTTP": { flags: HTTP, isSecure: true, redirects: true, http2: "with WebSocket", make: haproxy("haproxy.cfg") },
  nginx: { flags: HTTP, isSecure: true, redirects: true, http2: "without WebSocket", make: nginx },
  "nginx, X-Real-IP": { flags: { ...HTTP, "client-address-header": "x-real-ip" }, isSecure: true, redirects: true, make: nginx },
  Caddy: { flags: HTTP, isSecure: true, http2: "without WebSocket", make: caddy },
};

/** Makes a certificate for 127.0.0.1 in `folder`, and gives it. */
function certificate(folder) {
  const [key, made] = [join(folder, "key.pem"), join(folder, "certificate.pem")];
  const words = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=duet-tests"];
  execFileSync("openssl", ["req", "-x509", ...words, "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", made], { stdio: "ignore" });
  const pem = readFileSync(made, "utf8");
  writeFileSync(join(folder, "both.pem"), pem + readFileSync(key, "utf8"));
  return pem;
}

/** What a cast takes for its server: all goes through the proxy, and each of its people comes from an address of his own. */
export class Front {
  /** `more`: further words of the example, by what stands for them. */
  static async start(server, { isSecure, make }, more) {
    const front = new Front();
    const folder = temporaryFolder("none");
    const [plain, secure] = [await freePort(), await freePort()];
    Object.assign(front, { server, folder, output: "", plainUrl: `http://127.0.0.1:${plain}` });
    front.url = isSecure ? `https://127.0.0.1:${secure}` : front.plainUrl;
    front.ca = certificate(folder);
    const [program, ...args] = make({ server, folder, plain, secure, more });
    await front.launch(program, args);
    return front;
  }

  async launch(program, args) {
    const env = { PATH, HOME: this.folder, TMPDIR: this.folder };
    this.child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env });
    running.add(this.child);
    for (const stream of [this.child.stdout, this.child.stderr]) stream.setEncoding("utf8").on("data", (text) => (this.output += text));
    this.exited = new Promise((resolve) => this.child.once("error", resolve).once("close", resolve));
    this.exited.then(() => running.delete(this.child));
    const serves = () => this.get("/ready").then(({ status }) => status === 200, () => false);
    await Promise.race([
      eventually(`${program} serves`, serves, START_MS),
      this.exited.then((why) => Promise.reject(new Error(`${program} has ended: ${why}`))),
    ]).catch((error) => {
      this.child.kill("SIGTERM");
      error.message += `; it printed:\n${this.output}`;
      throw error;
    });
  }

  /** How somebody comes here who has not been here before. */
  get reach() {
    return { ca: this.ca, localAddress: freshAddress().replace("10.0.", "127.9.") };
  }

  get alive() {
    return this.server.alive;
  }

  tail() {
    return `${this.server.tail()}\n--- the proxy printed\n${this.output.slice(-1_500)}`;
  }

  /** One request on a connection of its own; `reach` says from where. */
  async ask(method, path, { reach = this.reach, base = this.url, ...options } = {}) {
    const agent = kept(base, { reach });
    try {
      return await request(base, method, path, { agent, ...options });
    } finally {
      agent.destroy();
    }
  }

  get(path, options) {
    return this.ask("GET", path, options);
  }

  /** The line of `show stat` about this server of HAProxy's, by the names of its columns. */
  async stat(name) {
    const text = await new Promise((resolve, reject) => {
      let text = "";
      const socket = net.connect(join(this.folder, "admin")).setEncoding("utf8");
      socket.on("data", (part) => (text += part)).on("error", reject).on("close", () => resolve(text));
      socket.write("show stat\n");
    });
    const [head, ...rows] = text.trim().split("\n").map((line) => line.split(","));
    const row = rows.find((row) => row[0] === "duet" && row[1] === name);
    return Object.fromEntries(head.map((column, index) => [column.replace("# ", ""), row[index]]));
  }

  async stop() {
    this.child.kill("SIGTERM");
    await this.exited;
  }
}
