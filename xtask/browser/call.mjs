// A call between two browsers in two network namespaces: the client's media is relayed (iceTransportPolicy "relay"), the
// peer's browser is reached directly, or is relayed in its turn. Signalling goes through this process. Prints what both browsers' getStats() say
// once they are connected and at the end, as JSON.
//
// Usage: node call.mjs '{"client": BROWSER, "peer": BROWSER, "peerIsRelayed": BOOL, "iceServer": RTCIceServer, "seconds": N}'
// BROWSER: {"kind": "chromium" | "firefox", "path": PATH}

import { createServer } from "node:http";

import { chromium } from "playwright-core";
import puppeteer from "puppeteer-core";

const call = JSON.parse(process.argv[2]);
const { iceServer, seconds } = call;

const chromiumArguments = [
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
  "--disable-gpu",
  "--autoplay-policy=no-user-gesture-required",
  "--disable-background-networking",
  "--disable-component-update",
  "--host-resolver-rules=MAP * ~NOTFOUND",
];

const firefoxPreferences = {
  "media.navigator.streams.fake": true,
  "media.navigator.permission.disabled": true,
  "media.peerconnection.ice.obfuscate_host_addresses": false,
  "media.autoplay.default": 0,
  // Nothing but the call goes out.
  "network.connectivity-service.enabled": false,
  "network.captive-portal-service.enabled": false,
};

const page = "<!doctype html><video id=remote autoplay></video>";
const patience = 120_000;

// A bound that only a hang reaches.
setTimeout(() => {
  console.error("the call did not end");
  process.exit(1);
}, (seconds + 300) * 1000).unref();

const browsers = [];
try {
  const client = await open(call.client);
  const peer = await open(call.peer);

  const relayed = { iceServers: [iceServer], iceTransportPolicy: "relay" };
  const offer = await client.evaluate(createOffer, relayed);
  const answer = await peer.evaluate(createAnswer, { offer, configuration: call.peerIsRelayed ? relayed : {} });
  await client.evaluate((sdp) => pc.setRemoteDescription({ type: "answer", sdp }), answer);
  await Promise.all([client, peer].map((page) => page.evaluate(connected)));
  const atStart = await Promise.all([client, peer].map((page) => page.evaluate(stats)));
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const atEnd = await Promise.all([client, peer].map((page) => page.evaluate(stats)));
  const report = (side) => ({ ...atEnd[side], inboundAtStart: atStart[side].inbound });
  console.log(JSON.stringify({ client: report(0), peer: report(1) }));
  await Promise.all([client, peer].map((page) => page.evaluate(() => pc.close())));
} finally {
  await Promise.all(browsers.map((browser) => browser.close()));
}

async function open({ kind, path }) {
  const opened = await { chromium: openChromium, firefox: openFirefox }[kind](path);
  await opened.evaluate(prepare);
  return opened;
}

async function openChromium(executablePath) {
  const options = { executablePath, args: chromiumArguments, chromiumSandbox: false, timeout: patience };
  const browser = await chromium.launch(options);
  browsers.push(browser);
  const opened = await browser.newPage();
  opened.setDefaultTimeout(patience);
  // A secure context, which getUserMedia() asks for, without a server.
  await opened.route("https://app.test/", (route) => route.fulfill({ contentType: "text/html", body: page }));
  await opened.goto("https://app.test/");
  return opened;
}

async function openFirefox(executablePath) {
  const options = { extraPrefsFirefox: firefoxPreferences, timeout: patience, protocolTimeout: (seconds + 300) * 1000 };
  const browser = await puppeteer.launch({ browser: "firefox", executablePath, headless: true, ...options });
  browsers.push(browser);
  const opened = await browser.newPage();
  opened.setDefaultTimeout(patience);
  // It cannot be told to take the page from us, and a page at localhost is a secure context, too.
  const server = createServer((_, response) => response.setHeader("content-type", "text/html").end(page));
  await new Promise((resolve) => server.listen(0, "localhost", resolve));
  await opened.goto(`http://localhost:${server.address().port}/`);
  server.close();
  return opened;
}

// What follows runs in the pages.

function prepare() {
  window.connect = async (configuration) => {
    window.pc = new RTCPeerConnection(configuration);
    pc.ontrack = ({ streams: [stream] }) => (document.getElementById("remote").srcObject = stream);
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 640, height: 480 } });
    stream.getTracks().forEach((track) => pc.addTrack(track, stream));
  };
  // Resolves to the description once it holds an IPv4 candidate that will do: not all that gathering may still find.
  window.gathered = async (description) => {
    const wanted = pc.getConfiguration().iceTransportPolicy === "relay" ? "relay" : "host";
    const found = new Promise((resolve, reject) => {
      pc.onicecandidate = ({ candidate }) => {
        if (candidate?.type === wanted && !candidate.address.includes(":")) resolve();
        if (candidate === null) reject(new Error(`no ${wanted} candidate`));
      };
    });
    await pc.setLocalDescription(description);
    await found;
    return pc.localDescription.sdp;
  };
}

async function createOffer(configuration) {
  await connect(configuration);
  return gathered(await pc.createOffer());
}

async function createAnswer({ offer, configuration }) {
  await connect(configuration);
  await pc.setRemoteDescription({ type: "offer", sdp: offer });
  return gathered(await pc.createAnswer());
}

function connected() {
  return new Promise((resolve, reject) => {
    const check = () => {
      if (pc.connectionState === "connected") resolve();
      if (pc.connectionState === "failed") reject(new Error("ICE or DTLS failed"));
    };
    pc.onconnectionstatechange = check;
    check();
  });
}

async function stats() {
  const reports = [...(await pc.getStats()).values()];
  const byId = (id) => reports.find((report) => report.id === id);
  const transport = reports.find((report) => report.type === "transport");
  // Firefox has no transport report, and says it of the pair.
  const pair = byId(transport?.selectedCandidatePairId) ?? reports.find((report) => report.selected);
  return {
    localCandidateType: byId(pair.localCandidateId).candidateType,
    relayProtocol: byId(pair.localCandidateId).relayProtocol ?? null,
    remoteCandidateType: byId(pair.remoteCandidateId).candidateType,
    packetsSent: pair.packetsSent,
    packetsReceived: pair.packetsReceived,
    inbound: reports
      .filter((report) => report.type === "inbound-rtp")
      .map(({ kind, packetsReceived, packetsLost, framesDecoded }) => ({
        kind,
        packetsReceived,
        packetsLost,
        framesDecoded: framesDecoded ?? null,
      })),
  };
}
