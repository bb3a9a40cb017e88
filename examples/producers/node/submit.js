'use strict';
// Submits one job to the media relay over Kafka and waits for its end.
//
// usage: node submit.js BOOTSTRAP TASK FILE
//
// Prints where the broker put the record, then the job's terminal event, one JSON a line. Exit code 0: completed, 1: any
// other end, 2: wrong usage. The contract is docs/kafka.md.

const { randomBytes } = require('node:crypto');
const { readFileSync } = require('node:fs');
const { basename } = require('node:path');
const { Kafka, Partitioners, logLevel } = require('kafkajs');

const LANE_TOPIC = 'media.jobs.default';
const EVENTS_TOPIC = 'media.events';
const TENANT = 'default';
const TERMINAL = new Set(['completed', 'failed', 'cancelled', 'expired', 'dead_lettered']);
const PATIENCE_MS = 60_000;

/** A UUID of version 7: time-ordered, so that nodes find the job's events quickly. */
function newJobId() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

/** Where the one partition that this job's events go to ends now: the twelve bits after the UUID's version name it. */
async function endOfEvents(kafka, id) {
  const admin = kafka.admin();
  await admin.connect();
  try {
    const partitions = await admin.fetchTopicOffsets(EVENTS_TOPIC);
    const number = parseInt(id.slice(15, 18), 16) % partitions.length;
    return partitions.find(({ partition }) => partition === number);
  } finally {
    await admin.disconnect();
  }
}

/** Writes the record; resolves once every in-sync broker has it: from then on the job is accepted. */
async function submit(kafka, job) {
  // JavaCompatiblePartitioner hashes the key with murmur2, as the relay expects.
  const producer = kafka.producer({ idempotent: true, createPartitioner: Partitioners.JavaCompatiblePartitioner });
  await producer.connect();
  try {
    const trace = `00-${randomBytes(16).toString('hex')}-${randomBytes(8).toString('hex')}-01`;
    // An error leaves it open whether it was written: write it again with the same id, it runs once.
    const [place] = await producer.send({
      topic: LANE_TOPIC,
      acks: -1,
      messages: [{ key: `${job.tenant}/${job.id}`, value: JSON.stringify(job), headers: { traceparent: trace } }],
    });
    return { topic: place.topicName, partition: place.partition, offset: Number(place.baseOffset) };
  } finally {
    await producer.disconnect();
  }
}

/** Reads from `place` until the job's terminal event. kafkajs reads as a member of a group: this one is for the job alone. */
async function waitForEnd(kafka, id, place) {
  const consumer = kafka.consumer({ groupId: `submit-example-${id}`, readUncommitted: false });
  let timer;
  try {
    await consumer.connect();
    await consumer.subscribe({ topics: [EVENTS_TOPIC] });
    return await new Promise((resolve, reject) => {
      timer = setTimeout(() => reject(new Error('the job did not end in time')), PATIENCE_MS);
      consumer.on(consumer.events.CRASH, ({ payload }) => payload.restart || reject(payload.error));
      consumer
        .run({
          autoCommit: false,
          eachMessage: async ({ message }) => {
            const isOurs = message.key?.toString() === id;
            if (isOurs && TERMINAL.has(message.headers['relay-event'].toString())) {
              resolve(JSON.parse(message.value.toString()));
            }
          },
        })
        .catch(reject);
      consumer.seek({ topic: EVENTS_TOPIC, partition: place.partition, offset: place.offset });
    });
  } finally {
    clearTimeout(timer);
    await consumer.disconnect();
  }
}

async function main(arguments_) {
  if (arguments_.length !== 3) {
    console.error('usage: node submit.js BOOTSTRAP TASK FILE');
    return 2;
  }
  const [bootstrap, task, file] = arguments_;
  const kafka = new Kafka({ brokers: bootstrap.split(','), clientId: 'submit-example', logLevel: logLevel.ERROR });
  const id = newJobId();
  const data = readFileSync(file).toString('base64');
  const job = { id, tenant: TENANT, task, input: { inline: { data, name: basename(file) } } };
  const start = await endOfEvents(kafka, id); // before the job is submitted, so that no event is missed
  console.log(JSON.stringify({ id, ...(await submit(kafka, job)) }));
  const end = await waitForEnd(kafka, id, start);
  console.log(JSON.stringify(end));
  return end.event === 'completed' ? 0 : 1;
}

main(process.argv.slice(2)).then(
  (code) => process.exit(code),
  (error) => {
    console.error(error.message);
    process.exit(1);
  },
);
