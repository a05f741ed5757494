// A call between two Chromium browsers in two network namespaces: the client's media is relayed (iceTransportPolicy
// "relay"), the peer's browser is reached directly. Signalling goes through this process. Prints what both browsers'
// getStats() say at the end, as JSON.
//
// Usage: node call.mjs '{"clientBrowser": PATH, "peerBrowser": PATH, "iceServer": RTCIceServer, "seconds": N}'

import { chromium } from "playwright-core";

const { clientBrowser, peerBrowser, iceServer, seconds } = JSON.parse(process.argv[2]);

const args = [
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
  "--disable-gpu",
  "--autoplay-policy=no-user-gesture-required",
  "--disable-background-networking",
  "--disable-component-update",
  "--host-resolver-rules=MAP * ~NOTFOUND",
];

// A bound that only a hang reaches.
setTimeout(() => {
  console.error("the call did not end");
  process.exit(1);
}, (seconds + 300) * 1000).unref();

const browsers = [];
try {
  const client = await open(clientBrowser);
  const peer = await open(peerBrowser);

  const offer = await client.evaluate(createOffer, { iceServers: [iceServer], iceTransportPolicy: "relay" });
  const answer = await peer.evaluate(createAnswer, offer);
  await client.evaluate((sdp) => pc.setRemoteDescription({ type: "answer", sdp }), answer);
  await Promise.all([client, peer].map((page) => page.evaluate(connected)));
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));

  const [clientStats, peerStats] = await Promise.all([client, peer].map((page) => page.evaluate(stats)));
  console.log(JSON.stringify({ client: clientStats, peer: peerStats }));
  await Promise.all([client, peer].map((page) => page.evaluate(() => pc.close())));
} finally {
  await Promise.all(browsers.map((browser) => browser.close()));
}

async function open(executablePath) {
  const browser = await chromium.launch({ executablePath, args, chromiumSandbox: false, timeout: 120_000 });
  browsers.push(browser);
  const page = await browser.newPage();
  page.setDefaultTimeout(120_000);
  // A secure context, which getUserMedia() asks for, without a server.
  await page.route("https://app.test/", (route) =>
    route.fulfill({ contentType: "text/html", body: "<!doctype html><video id=remote autoplay></video>" }),
  );
  await page.goto("https://app.test/");
  await page.evaluate(prepare);
  return page;
}

// What follows runs in the pages.

function prepare() {
  window.connect = async (configuration) => {
    window.pc = new RTCPeerConnection(configuration);
    pc.ontrack = ({ streams: [stream] }) => (document.getElementById("remote").srcObject = stream);
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 640, height: 480 } });
    stream.getTracks().forEach((track) => pc.addTrack(track, stream));
  };
  // Resolves to the description once it holds a candidate that will do: not all that gathering may still find.
  window.gathered = async (description) => {
    const wanted = pc.getConfiguration().iceTransportPolicy === "relay" ? "relay" : "host";
    const found = new Promise((resolve, reject) => {
      pc.onicecandidate = ({ candidate }) => {
        if (candidate?.type === wanted) resolve();
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

async function createAnswer(offer) {
  await connect({});
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
  const pair = byId(transport.selectedCandidatePairId);
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
