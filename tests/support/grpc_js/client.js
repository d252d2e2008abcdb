// Makes one call by grpc-js. The first line of stdin says which, in JSON; the line "cancel" cancels it. Each message of
// the response is printed as a line, and then how the call ended. See tests/support/grpc_js.py.
'use strict';

const fs = require('node:fs');
const readline = require('node:readline');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

function print(line) {
  fs.writeSync(1, JSON.stringify(line) + '\n');
}

function channel(asked) {
  const { ca, key, cert } = asked.tls ?? {};
  const pem = (text) => (text ? Buffer.from(text) : null);
  const credentials = asked.tls
    ? grpc.credentials.createSsl(pem(ca), pem(key), pem(cert))
    : grpc.credentials.createInsecure();
  const options = { 'grpc.enable_retries': 0 };
  if (asked.gzip) {
    options['grpc.default_compression_algorithm'] = grpc.compressionAlgorithms.gzip;
  }
  return new grpc.Client(asked.target, credentials, options);
}

function metadataOf(pairs) {
  const metadata = new grpc.Metadata();
  for (const [name, value] of pairs) {
    metadata.add(name, name.endsWith('-bin') ? Buffer.from(value, 'base64') : value);
  }
  return metadata;
}

function pairsOf(metadata) {
  return Object.keys(metadata.getMap()).flatMap((name) =>
    metadata.get(name).map((value) => [name, Buffer.isBuffer(value) ? value.toString('base64') : value]));
}

// google.rpc.Status in grpc-status-details-bin, each detail with the name of its type.
function detailsOf(types, status) {
  const [packed] = status.metadata.get('grpc-status-details-bin');
  if (packed === undefined) {
    return null;
  }
  const { code, message, details } = types['google.rpc.Status'].deserialize(packed);
  const unpacked = details.map(({ type_url: url, value }) => {
    const name = url.slice(url.lastIndexOf('/') + 1);
    return [name, types[name].deserialize(value)];
  });
  return { code, message, details: Object.fromEntries(unpacked) };
}

function start(client, types, asked) {
  const method = types[asked.service][asked.method];
  const metadata = metadataOf(asked.metadata);
  const options = asked.seconds === null ? {} : { deadline: new Date(Date.now() + asked.seconds * 1000) };
  const shared = [method.path, method.requestSerialize, method.responseDeserialize];
  const ends = (error, message) => error ?? print({ message });
  if (!method.requestStream && !method.responseStream) {
    return client.makeUnaryRequest(...shared, asked.requests[0], metadata, options, ends);
  }
  if (!method.requestStream) {
    return client.makeServerStreamRequest(...shared, asked.requests[0], metadata, options);
  }
  if (!method.responseStream) {
    throw new Error(`${method.path} streams requests alone: not supported here`);
  }
  const call = client.makeBidiStreamRequest(...shared, metadata, options);
  asked.requests.forEach((request) => call.write(request));
  call.end();
  return call;
}

function main(asked, lines) {
  // Whatever happens, this process ends.
  setTimeout(() => process.exit(9), asked.patience * 1000).unref();
  const set = Buffer.from(asked.descriptors, 'base64');
  const types = loader.loadFileDescriptorSetFromBuffer(set, {
    keepCase: true, longs: String, enums: String, defaults: false, oneofs: true,
  });
  const client = channel(asked);
  const call = start(client, types, asked);
  let initial = [];
  call.on('metadata', (metadata) => { initial = pairsOf(metadata); });
  call.on('data', (message) => print({ message }));
  // An error event comes with each status but OK, which the status event tells too.
  call.on('error', () => {});
  call.on('status', (status) => {
    const error = detailsOf(types, status);
    print({ code: grpc.status[status.code], text: status.details, initial, trailers: pairsOf(status.metadata), error });
    lines.close();
    client.close();
  });
  lines.on('line', (line) => line === 'cancel' && call.cancel());
}

const lines = readline.createInterface({ input: process.stdin });
lines.once('line', (line) => main(JSON.parse(line), lines));
