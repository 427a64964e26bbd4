// A subscriber to orders' events: its own queue, effects that happen once, dead letters, history.
//
//   npm ci
//   AMQP_URL=amqp://TEAM:PASSWORD@HOST:5672/ DATABASE_URL=postgresql://… node subscriber.js [--history]
//
// Stores the newest state of each order and the amount ordered per currency in its own PostgreSQL database.
// With --history it first reads the whole stream. Stream and queue may overlap, since an event takes effect only once.

import amqp from "amqplib";
import pg from "pg";

const url = process.env.AMQP_URL;
const team = new URL(url).username; // the prefix of our queues

const TABLES = `
  CREATE TABLE IF NOT EXISTS inbox (event_id uuid PRIMARY KEY);
  CREATE TABLE IF NOT EXISTS orders (id uuid PRIMARY KEY, version integer NOT NULL, state text NOT NULL);
  CREATE TABLE IF NOT EXISTS ordered (currency text PRIMARY KEY, amount bigint NOT NULL);`;

/** Decodes the event. Throws if the message is invalid. */
function decode({ content, properties: { headers } }) {
  const { cloudEvents_id: id, cloudEvents_type: type, cloudEvents_aggregateversion: version } = headers;
  const data = JSON.parse(content);
  if (!id || !type || !version || !data.order_id) throw new TypeError("an attribute is missing");
  return { id, version, state: type.split(".")[2], data }; // orders.order.placed.v1
}

/** Stores the event's effect and its id in one transaction, which commits before the message is acknowledged. */
async function processEvent(database, { id, version, state, data }) {
  await database.query("BEGIN");
  const { rowCount } = await database.query("INSERT INTO inbox VALUES ($1) ON CONFLICT DO NOTHING", [id]);
  if (rowCount === 1) {
    // not a repetition
    await database.query(
      `INSERT INTO orders VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE
       SET version = excluded.version, state = excluded.state WHERE excluded.version > orders.version`,
      [data.order_id, version, state],
    );
    if (state === "placed") {
      await database.query(
        `INSERT INTO ordered VALUES ($1, $2) ON CONFLICT (currency) DO UPDATE
         SET amount = ordered.amount + excluded.amount`,
        [data.total.currency, data.total.amount],
      );
    }
  }
  await database.query("COMMIT");
}

/** Returns false for an invalid message. Any other failure ends the process; the message is redelivered. */
async function tryProcess(database, message) {
  let event;
  try {
    event = decode(message);
  } catch (error) {
    console.log(`invalid message: ${message.properties.messageId}: ${error}`);
    return false;
  }
  await processEvent(database, event);
  return true;
}

/** Binds our queue to the events that we want. The broker's operator created it; we may create none. */
async function bindInbound(channel) {
  await channel.bindQueue(`${team}.inbound`, "orders.events", "orders.order.#");
  await channel.bindQueue(`${team}.inbound`, "orders.replay", `${team}.inbound`); // so that history can be sent to us
  return `${team}.inbound`;
}

/** Processes messages one after the other, in the order of their arrival. */
async function listen(channel, queue, work, options = {}) {
  let last = Promise.resolve();
  return channel.consume(queue, (message) => (last = last.then(() => work(message))), options);
}

/** Reads the stream from its first event until it overlaps with our queue. Reading removes nothing from a stream. */
async function readHistory(channel, database) {
  const overlap = Date.now() / 1000 + 60; // a margin for the producer's clock
  await new Promise((done) => {
    let silence = setTimeout(done, 30_000); // for the first message; after that 5 s without a message mean the end
    let overlapping = false;
    const work = async (message) => {
      if (overlapping) return;
      clearTimeout(silence);
      await tryProcess(database, message);
      channel.ack(message); // to receive more; streams do not support reject
      overlapping = message.properties.timestamp > overlap;
      silence = setTimeout(done, overlapping ? 0 : 5000);
    };
    listen(channel, "orders.events.log", work, { arguments: { "x-stream-offset": "first" } });
  });
  console.log("history is read");
}

const database = new pg.Client({ connectionString: process.env.DATABASE_URL });
await database.connect();
await database.query(TABLES);
const connection = await amqp.connect(url);
connection.on("close", () => process.exit(1)); // the supervisor restarts the process
const channel = await connection.createChannel();
await channel.prefetch(100); // required for a stream
const inbound = await bindInbound(channel); // before the history, so that no event is missed
if (process.argv.includes("--history")) {
  const reading = await connection.createChannel();
  await reading.prefetch(100);
  await readHistory(reading, database);
  await reading.close();
}
await listen(channel, inbound, async (message) => {
  if (await tryProcess(database, message)) channel.ack(message);
  else channel.reject(message, false); // to the dead-letter exchange
});
console.log("listening");
