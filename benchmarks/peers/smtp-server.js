'use strict'
// The peer: nodemailer's smtp-server, one process, its log off, no reverse lookups, AUTH not
// offered. Where BENCHMARK_OUTLET is "null" it drops what it receives, else see publisher.js.
// STARTTLS where BENCHMARK_CERTIFICATE and BENCHMARK_KEY name files.
//
// It waits 100 ms before each banner for clients that talk too soon; no option changes that.

const fs = require('node:fs')
const { SMTPServer } = require('smtp-server')

const { BENCHMARK_CERTIFICATE, BENCHMARK_KEY, BENCHMARK_OUTLET } = process.env
const LARGEST = 64 * 1024 * 1024

const drop = (stream, session, done) => {
    stream.resume()
    stream.once('end', done)
}

const publishing = (publish) => (stream, session, done) => {
    const chunks = []
    stream.on('data', (chunk) => chunks.push(chunk))
    stream.once('end', () => {
        const client = {
            localAddress: session.localAddress,
            localPort: session.localPort,
            remoteAddress: session.remoteAddress,
            remotePort: session.remotePort,
            secure: session.secure,
            helo: session.hostNameAppearsAs,
        }
        const sender = session.envelope.mailFrom.address
        const recipient = session.envelope.rcptTo[0].address
        publish({ sender, recipient, client, mime: Buffer.concat(chunks) }, done)
    })
}

const main = async () => {
    const onData =
        BENCHMARK_OUTLET === 'null' ? drop : publishing(await require('./publisher').connect())
    const tls = BENCHMARK_CERTIFICATE
        ? { cert: fs.readFileSync(BENCHMARK_CERTIFICATE), key: fs.readFileSync(BENCHMARK_KEY) }
        : {}
    const server = new SMTPServer({
        name: 'peer.example',
        logger: false,
        disableReverseLookup: true,
        disabledCommands: BENCHMARK_CERTIFICATE ? ['AUTH'] : ['AUTH', 'STARTTLS'],
        size: LARGEST,
        onData,
        ...tls,
    })
    // A client that goes without QUIT is no reason to end.
    server.on('error', () => {})
    server.server.listen(0, '127.0.0.1', 1024)
}

main()
