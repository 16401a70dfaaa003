/** The version of the API's description and of the server. */
export const apiVersion = "0.1.0"
