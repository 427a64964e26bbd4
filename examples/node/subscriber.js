// A subscriber to orders' events: a queue of its own, effects that happen once, dead letters, history.
//
//   npm ci
//   AMQP_URL=amqp://TEAM:PASSWORD@HOST:5672/ DATABASE_URL=postgresql://… node subscriber.js [--history]
//
// Keeps the newest state of each order, and what was ordered for, in a PostgreSQL database of its own.
// With --history it first reads all that the stream has. What it had already makes no difference, so both may overlap.

import amqp from "amqplib";
import pg from "pg";

const url = process.env.AMQP_URL;
const team = new URL(url).username; // all that we may declare begins with it
const quorum = { "x-queue-type": "quorum" };

const TABLES = `
  CREATE TABLE IF NOT EXISTS inbox (event_id uuid PRIMARY KEY);
  CREATE TABLE IF NOT EXISTS orders (id uuid PRIMARY KEY, version integer NOT NULL, state text NOT NULL);
  CREATE TABLE IF NOT EXISTS ordered (currency text PRIMARY KEY, amount bigint NOT NULL);`;

/** The message as an event; an error when it is none that we understand. */
function read({ content, properties: { headers } }) {
  const { cloudEvents_id: id, cloudEvents_type: type, cloudEvents_aggregateversion: version } = headers;
  const data = JSON.parse(content);
  if (!id || !type || !version || !data.order_id) throw new TypeError("an attribute is missing");
  return { id, version, state: type.split(".")[2], data }; // orders.order.placed.v1
}

/** The event's effect and the note that it was taken: one transaction, committed before the message is acknowledged. */
async function take(database, { id, version, state, data }) {
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

/** Whether it could be taken. Any other failure ends the process: what is not acknowledged comes again. */
async function understood(database, message) {
  let event;
  try {
    event = read(message);
  } catch (error) {
    console.log(`not understood: ${message.properties.messageId}: ${error}`);
    return false;
  }
  await take(database, event);
  return true;
}

/** Our queue, bound from now on, and before it the place for what we can't take. */
async function declareInbound(channel) {
  await channel.assertExchange(`${team}.dead`, "fanout", { durable: true });
  await channel.assertQueue(`${team}.parked`, { durable: true, arguments: quorum });
  await channel.bindQueue(`${team}.parked`, `${team}.dead`, "");
  const target = { ...quorum, "x-dead-letter-exchange": `${team}.dead` };
  await channel.assertQueue(`${team}.inbound`, { durable: true, arguments: target });
  await channel.bindQueue(`${team}.inbound`, "orders.events", "orders.order.#");
  return `${team}.inbound`;
}

/** Handles messages one after the other, in the order of their arrival. */
async function listen(channel, queue, work, options = {}) {
  let last = Promise.resolve();
  return channel.consume(queue, (message) => (last = last.then(() => work(message))), options);
}

/** The stream from its first event, up to what our queue gets as well. Reading removes nothing from a stream. */
async function readHistory(channel, database) {
  const overlap = Date.now() / 1000 + 60; // our clock, and that of who wrote the event
  await new Promise((done) => {
    let silence = setTimeout(done, 30_000); // until the first of them; then 5 s say that this was all
    let overlapping = false;
    const work = async (message) => {
      if (overlapping) return;
      clearTimeout(silence);
      await understood(database, message);
      channel.ack(message); // for more; a stream knows no reject
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
connection.on("close", () => process.exit(1)); // whoever started us starts us again
const channel = await connection.createChannel();
await channel.prefetch(100); // a stream asks for it
const inbound = await declareInbound(channel); // first: from here on nothing is missed
if (process.argv.includes("--history")) {
  const reading = await connection.createChannel();
  await reading.prefetch(100);
  await readHistory(reading, database);
  await reading.close();
}
await listen(channel, inbound, async (message) => {
  if (await understood(database, message)) channel.ack(message);
  else channel.reject(message, false); // to the dead-letter exchange
});
console.log("listening");
