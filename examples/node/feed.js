// Follows orders' events as a stream: GATEWAY=… CLIENT_ID=… CLIENT_SECRET=… node feed.js   (no dependencies)
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";

const { GATEWAY, CLIENT_ID, CLIENT_SECRET, RESUME = "feed.resume" } = process.env;
const basic = Buffer.from(`${encodeURIComponent(CLIENT_ID)}:${encodeURIComponent(CLIENT_SECRET)}`).toString("base64");

async function follow() {
  const body = new URLSearchParams({ grant_type: "client_credentials" });
  const granted = await fetch(`${GATEWAY}/token`, { method: "POST", body, headers: { Authorization: `Basic ${basic}` } });
  const headers = { Authorization: `Bearer ${(await granted.json()).access_token}` };
  if (existsSync(RESUME)) headers["Last-Event-ID"] = readFileSync(RESUME, "utf8"); // else it begins now
  const stream = await fetch(`${GATEWAY}/events/stream`, { headers });
  if (!stream.ok) throw new Error(await stream.text());
  let text = "";
  for await (const chunk of stream.body.pipeThrough(new TextDecoderStream())) {
    const frames = (text + chunk).split("\n\n");
    text = frames.pop(); // not complete yet
    for (const frame of frames) {
      const { id, data } = Object.fromEntries(frame.split("\n").map((line) => line.split(/: (.*)/s, 2)));
      if (!id) continue; // a comment, or the event `end`
      const event = JSON.parse(data);
      console.log(event.type, event.subject, event.aggregateversion); // your work
      writeFileSync(`${RESUME}.new`, id); // after it: a crash in between repeats the event
      renameSync(`${RESUME}.new`, RESUME);
    }
  }
}

for (;;) {
  await follow().catch((error) => console.log("will retry:", error.message));
  await new Promise((resolve) => setTimeout(resolve, 1000));
}
