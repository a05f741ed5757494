// A call between two headless Chromiums in two network namespaces, for the lab tests.
//
//   node call.mjs '{"turn":"turn:198.18.1.1:3478","username":"u","credential":"p",
//                   "callerNetns":"NS","calleeNetns":"NS","seconds":60,"chromium":"/usr/bin/chromium"}'
//
// The caller may use relayed candidates only; the callee uses what it has. Both send fake camera and
// microphone. Signalling goes through this process. Prints one JSON object: for each side the selected
// candidate pair and what was received, counted by the browser itself.
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const options = JSON.parse(process.argv[2]);
const scratch = await mkdtemp(join(tmpdir(), 'turnpike-call-'));

/** A Chromium inside `netns`, on a page that counts as secure without any server. */
async function open(netns) {
  const launcher = join(scratch, `chromium-${netns}`);
  await writeFile(launcher, `#!/bin/sh\nexec ip netns exec ${netns} ${options.chromium} "$@"\n`);
  await chmod(launcher, 0o755);
  const browser = await chromium.launch({
    executablePath: launcher,
    headless: true,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--use-fake-device-for-media-stream',
      '--use-fake-ui-for-media-stream',
      '--autoplay-policy=no-user-gesture-required',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--no-first-run',
      '--host-resolver-rules=MAP * ~NOTFOUND',
      // Host candidates as addresses: mDNS names do not resolve between namespaces.
      '--disable-features=WebRtcHideLocalIpsWithMdns',
    ],
  });
  const page = await (await browser.newContext({ permissions: ['camera', 'microphone'] })).newPage();
  await page.route('https://app.test/', (route) =>
    route.fulfill({ contentType: 'text/html', body: '<!doctype html><title>call</title>' }));
  await page.goto('https://app.test/');
  return { browser, page };
}

/** Runs in the page: a peer connection with camera and microphone; `signal` carries candidates out. */
async function start(configuration) {
  const connection = new RTCPeerConnection(configuration);
  window.connection = connection;
  connection.onicecandidate = ({ candidate }) => candidate && window.signal(candidate.toJSON());
  connection.ontrack = ({ streams: [stream] }) => {
    const video = document.createElement('video');
    Object.assign(video, { srcObject: stream, autoplay: true, muted: true });
    document.body.append(video);
  };
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 640, height: 480 } });
  for (const track of stream.getTracks()) connection.addTrack(track, stream);
}

/** Runs in the page: what the browser knows of the call. */
async function report() {
  const stats = [...(await window.connection.getStats()).values()];
  const byId = new Map(stats.map((entry) => [entry.id, entry]));
  const transport = stats.find((entry) => entry.type === 'transport');
  const pair = byId.get(transport?.selectedCandidatePairId);
  const candidate = (id) => {
    const { candidateType, protocol, relayProtocol, address, port } = byId.get(id) ?? {};
    return { candidateType, protocol, relayProtocol, address, port };
  };
  const inbound = stats.filter((entry) => entry.type === 'inbound-rtp').map((entry) => ({
    kind: entry.kind,
    packetsReceived: entry.packetsReceived,
    packetsLost: entry.packetsLost,
    framesDecoded: entry.framesDecoded ?? null,
  }));
  return {
    connectionState: window.connection.connectionState,
    pair: pair && {
      local: candidate(pair.localCandidateId),
      remote: candidate(pair.remoteCandidateId),
      packetsSent: pair.packetsSent,
      packetsReceived: pair.packetsReceived,
      bytesSent: pair.bytesSent,
      bytesReceived: pair.bytesReceived,
    },
    inbound,
  };
}

const browsers = [];
try {
  const caller = await open(options.callerNetns);
  browsers.push(caller.browser);
  const callee = await open(options.calleeNetns);
  browsers.push(callee.browser);

  // Candidates may be found before the other side has a description to hang them on.
  const described = {};
  const connected = new Promise((resolve) => { described.done = resolve; });
  const carry = async (to, candidate) => {
    await connected;
    await to.page.evaluate((c) => window.connection.addIceCandidate(c), candidate);
  };
  await caller.page.exposeFunction('signal', (candidate) => carry(callee, candidate));
  await callee.page.exposeFunction('signal', (candidate) => carry(caller, candidate));

  const { turn: urls, username, credential } = options;
  await caller.page.evaluate(start, { iceServers: [{ urls, username, credential }], iceTransportPolicy: 'relay' });
  await callee.page.evaluate(start, {});

  const offer = await caller.page.evaluate(async () => {
    await window.connection.setLocalDescription();
    return window.connection.localDescription.toJSON();
  });
  const answer = await callee.page.evaluate(async (description) => {
    await window.connection.setRemoteDescription(description);
    await window.connection.setLocalDescription();
    return window.connection.localDescription.toJSON();
  }, offer);
  await caller.page.evaluate((description) => window.connection.setRemoteDescription(description), answer);
  described.done();

  await Promise.all([caller, callee].map(({ page }) =>
    page.waitForFunction(() => window.connection.connectionState === 'connected', null, { timeout: 60_000 })));
  await new Promise((resolve) => setTimeout(resolve, options.seconds * 1000));
  const [callerReport, calleeReport] = await Promise.all([caller.page.evaluate(report), callee.page.evaluate(report)]);
  console.log(JSON.stringify({ caller: callerReport, callee: calleeReport }));
} finally {
  await Promise.allSettled(browsers.map((browser) => browser.close()));
  await rm(scratch, { recursive: true, force: true });
}
