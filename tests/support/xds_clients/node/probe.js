// A probe: calls an echo service by grpc-js without stop, and says when the answer becomes another one.
// The protocol is that of ../probe.py.
'use strict';

const fs = require('node:fs');
const readline = require('node:readline');
const grpc = require('@grpc/grpc-js');
const xds = require('@grpc/grpc-js-xds');

const METHOD = '/pointsman.test.Echo/Echo';
const DEADLINE_MS = 20_000;
const TICK_MS = 2;
const MOST_OPEN = 64;

const targets = new Map();

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const same = (bytes) => bytes;

// Unix nanoseconds; a double rounds them to 256.
const epoch = BigInt(Math.round(performance.timeOrigin * 1000)) * 1000n;
const now = () => Number(epoch + BigInt(Math.round(performance.now() * 1e6)));

function credentials(command) {
  const insecure = grpc.credentials.createInsecure();
  if (command.credentials === 'xds') return new xds.XdsChannelCredentials(insecure);
  if (command.credentials === 'tls') return grpc.credentials.createSsl(fs.readFileSync(command.ca));
  return insecure;
}

class Target {
  constructor(command) {
    const options = command.authority ? { 'grpc.default_authority': command.authority } : {};
    this.name = command.name;
    this.seconds = command.seconds ?? 0;
    this.client = new grpc.Client(command.uri, credentials(command), options);
    this.counts = {};
    this.run = 0;
    this.began = 0;
    this.open = 0;
    this.ending = false;
    if (command.rate > 0) this.loop(command.rate);
  }

  // Begins calls at a rate, however long each takes, while fewer than MOST_OPEN are under way.
  loop(rate) {
    const pause = 1000 / rate;
    let next = performance.now();
    this.timer = setInterval(() => {
      const time = performance.now();
      if (time - next > 1000) next = time;
      for (; next <= time; next += pause) {
        if (this.open < MOST_OPEN) this.call(this.seconds, (line) => this.count(line));
      }
    }, TICK_MS);
  }

  call(seconds, done) {
    const began = now();
    const finish = (code, backend, text) => {
      this.open -= 1;
      done({ code, backend, name: this.name, text, began, at: now() });
      if (this.ending && this.open === 0) this.client.close();
    };
    this.open += 1;
    const options = { deadline: Date.now() + DEADLINE_MS };
    this.client.makeUnaryRequest(METHOD, same, same, Buffer.from(String(seconds)), options, (error, reply) =>
      error ? finish(error.code, '', error.details) : finish(0, reply.toString(), ''),
    );
  }

  count(line) {
    if (this.run === 0 || line.code !== this.last.code || line.backend !== this.last.backend) {
      say({ say: 'change', ...line, before: this.run, last: this.began });
      this.last = line;
      this.run = 0;
    }
    this.run += 1;
    this.began = line.began;
    const key = `${line.code} ${line.backend}`;
    this.counts[key] = (this.counts[key] ?? 0) + 1;
  }

  drop() {
    clearInterval(this.timer);
    this.ending = true;
    if (this.open === 0) this.client.close();
  }
}

function drop(name) {
  targets.get(name)?.drop();
  targets.delete(name);
}

const commands = {
  target(command) {
    drop(command.name);
    try {
      targets.set(command.name, new Target(command));
    } catch (error) {
      say({ say: 'error', name: command.name, text: error.message });
    }
  },
  drop: (command) => drop(command.name),
  call(command) {
    targets.get(command.name)?.call(command.seconds, (line) => say({ say: 'call', id: command.id, ...line }));
  },
  summary(command) {
    const counts = Object.fromEntries([...targets].map(([name, target]) => [name, target.counts]));
    say({ say: 'summary', id: command.id, counts });
  },
  stop: () => process.exit(0),
};

xds.register();
say({ say: 'ready' });
const input = readline.createInterface({ input: process.stdin });
input.on('line', (text) => {
  const command = JSON.parse(text);
  commands[command.do](command);
});
input.on('close', () => process.exit(0));
