'use strict'
// Publishes what was received; publisher.js says how, and BENCHMARK_PUBLISHER where that is:
// Haraka runs in a copy of this folder.

let ready

// Haraka listens before this is done, so the first mail waits for it.
exports.register = () => {
    ready = require(process.env.BENCHMARK_PUBLISHER).connect()
}

exports.hook_queue = async (next, connection) => {
    const publish = await ready
    const { transaction, local, remote } = connection
    const client = {
        localAddress: local.ip,
        localPort: local.port,
        remoteAddress: remote.ip,
        remotePort: remote.port,
        secure: connection.tls.enabled,
        helo: connection.hello.host,
    }
    transaction.message_stream.get_data((mime) => {
        const sender = transaction.mail_from.address
        const recipient = transaction.rcpt_to[0].address
        publish({ sender, recipient, client, mime }, (error) => {
            if (error) next(DENYSOFT, 'not confirmed')
            else next(OK)
        })
    })
}
